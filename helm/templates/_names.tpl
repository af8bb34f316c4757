{{- define "ctrainer.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
constitutional-hash: cdd01ef066bc6cf2
{{- end }}

{{- define "ctrainer.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ctrainer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "ctrainer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ctrainer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "ctrainer.env" -}}
- {name: KAFKA_BOOTSTRAP_SERVERS, value: {{ .Values.kafka.bootstrapServers | quote }}}
- {name: CTRAINER_KAFKA_SECURITY_PROTOCOL, value: {{ .Values.kafka.securityProtocol | quote }}}
- {name: CTRAINER_PARTITIONS, value: {{ .Values.kafka.partitions | quote }}}
- {name: CTRAINER_REPLICATION_FACTOR, value: {{ .Values.kafka.replicationFactor | quote }}}
- {name: CTRAINER_STATE_FOLDER, value: /var/lib/ctrainer}
- {name: CTRAINER_CACHE_FOLDER, value: /var/lib/ctrainer/cache}
{{- with .Values.kafka.existingSecret }}
- name: CTRAINER_KAFKA_SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: username}}
- name: CTRAINER_KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: password}}
{{- end }}
{{- with .Values.redis.url }}
- {name: REDIS_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ctrainer.workerEnv" -}}
- {name: CTRAINER_WEB_HOST, value: 0.0.0.0}
{{- if .Values.redis.existingSecret }}
- {name: CTRAINER_CACHE_KEY_FILE, value: /etc/ctrainer-cache/seal}
{{- end }}
{{- with .Values.guard }}
{{- if .url }}
- {name: CTRAINER_GUARD_URL, value: {{ .url | quote }}}
- {name: CTRAINER_GUARD_MODEL, value: {{ .model | quote }}}
- {name: CTRAINER_GUARD_VERSION, value: {{ .version | quote }}}
- {name: CTRAINER_GUARD_ASK, value: {{ .ask | quote }}}
{{- if .existingSecret }}
- {name: CTRAINER_GUARD_TOKEN_FILE, value: /etc/ctrainer-guard/token}
{{- end }}
{{- end }}
{{- if .encoderClaim }}
- {name: CTRAINER_GUARD_ENCODER, value: /var/lib/encoder/all-mpnet-base-v2}
- {name: CTRAINER_GUARD_ASK, value: {{ .ask | quote }}}
{{- end }}
{{- end }}
{{- if .Values.requesters.existingSecret }}
- {name: CTRAINER_REQUESTERS, value: /etc/ctrainer/keyring.json}
{{- end }}
{{- end }}

{{- define "ctrainer.workerMounts" -}}
- {name: state, mountPath: /var/lib/ctrainer}
- {name: tmp, mountPath: /tmp}
{{- if .Values.requesters.existingSecret }}
- {name: requesters, mountPath: /etc/ctrainer, readOnly: true}
{{- end }}
{{- if .Values.redis.existingSecret }}
- {name: cache, mountPath: /etc/ctrainer-cache, readOnly: true}
{{- end }}
{{- if and .Values.guard.url .Values.guard.existingSecret }}
- {name: guard, mountPath: /etc/ctrainer-guard, readOnly: true}
{{- end }}
{{- if .Values.guard.encoderClaim }}
- {name: encoder, mountPath: /var/lib/encoder, readOnly: true}
{{- end }}
{{- end }}

{{- define "ctrainer.workerVolumes" -}}
- {name: state, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- with .Values.requesters.existingSecret }}
- {name: requesters, secret: {secretName: {{ . | quote }}}}
{{- end }}
{{- with .Values.redis.existingSecret }}
- {name: cache, secret: {secretName: {{ . | quote }}}}
{{- end }}
{{- if and .Values.guard.url .Values.guard.existingSecret }}
- {name: guard, secret: {secretName: {{ .Values.guard.existingSecret | quote }}}}
{{- end }}
{{- with .Values.guard.encoderClaim }}
- {name: encoder, persistentVolumeClaim: {claimName: {{ . | quote }}, readOnly: true}}
{{- end }}
{{- end }}
