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

# Many samples in one call. A sample without a decision is left out: whoever asked sees which one by the numbers.
batch := {
	"revision": data.revision,
	"decisions": [{"sample": number, "decision": made} |
		some number, sample in input.samples
		made := decision with input as sample
	],
}

enforced contains finding if {
	some finding in input.findings
	data.principles[finding.principle].mode == "enforce"
}

breaching contains finding if {
	some finding in enforced
	finding.score >= data.principles[finding.principle].threshold
}

rejecting contains principle if some principle in breached("reject")

reviewing contains principle if some principle in breached("review")

revising contains principle if some principle in breached("revise")

redacting contains principle if some principle in breached("redact")

breached(action) := {finding.principle |
	some finding in breaching
	data.principles[finding.principle].action == action
}

# A finding of a principle that this constitution does not know cannot be weighed.
unknown contains "unknown-principle" if {
	some finding in input.findings
	not data.principles[finding.principle]
}

# What is left after redaction counts. A finding below the threshold of its principle is no violation.
remaining contains finding.score if {
	some finding in breaching
	not finding.principle in redacting
}

score := 1 - max(remaining | {0})

# A score under the minimum that no action answers for is uncertain: a person decides.
uncertain contains "score-below-minimum" if score < data.constitution.minimum_score

refusals := rejecting | unknown

verdict := "reject" if {
	count(refusals) > 0
} else := "review" if {
	count(reviewing) > 0
} else := "revise" if {
	count(revising) > 0
} else := "review" if {
	count(uncertain) > 0
} else := "redact" if {
	count(redacting) > 0
} else := "accept"

reasons := refusals if {
	verdict == "reject"
} else := reviewing | revising if {
	count(reviewing | revising) > 0
} else := uncertain if {
	count(uncertain) > 0
} else := redacting
