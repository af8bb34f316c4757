# What becomes of a sample, given what was found in it. Input: findings (never text) and metadata of the sample.
# Data: `constitution` (reference, minimum_score) and `principles` by id. No matching constitution, no decision:
# an undefined decision is an error for whoever asked, never a permission.
package ctrainer.screening

import rego.v1

decision := {
	"verdict": verdict,
	"score": score,
	"reasons": sort(reasons),
	"redact": sort(redacting),
} if {
	input.constitution == data.constitution.digest
}

enforced contains finding if {
	some finding in input.findings
	data.principles[finding.principle].mode == "enforce"
}

breaching contains finding if {
	some finding in enforced
	finding.score >= data.principles[finding.principle].threshold
}

rejecting contains finding.principle if {
	some finding in breaching
	data.principles[finding.principle].action == "reject"
}

redacting contains finding.principle if {
	some finding in breaching
	data.principles[finding.principle].action == "redact"
}

# A finding of a principle that this constitution does not know cannot be weighed.
unknown contains "unknown-principle" if {
	some finding in input.findings
	not data.principles[finding.principle]
}

# What is left after redaction counts.
remaining contains finding.score if {
	some finding in enforced
	not redacted(finding)
}

redacted(finding) if {
	finding.principle in redacting
	finding.score >= data.principles[finding.principle].threshold
}

score := 1 - max(remaining | {0})

below contains "score-below-minimum" if score < data.constitution.minimum_score

refusals := (rejecting | unknown) | below

reasons := refusals if count(refusals) > 0

reasons := redacting if count(refusals) == 0

verdict := "reject" if count(refusals) > 0

verdict := "redact" if {
	count(refusals) == 0
	count(redacting) > 0
}

verdict := "accept" if {
	count(refusals) == 0
	count(redacting) == 0
}
