package istioyaml

// The codes of what reading configuration can find; finding.Codes says what each catches.
const (
	CodeInvalid     = "ISM-SCH01"
	CodeDoubtful    = "ISM-SCH02"
	CodeSyntax      = "ISM-SCH10"
	CodeBytes       = "ISM-SCH11"
	CodeTooLarge    = "ISM-SCH12"
	CodeDuplicate   = "ISM-SCH13"
	CodeUnknownKind = "ISM-SCH14"
	CodeMetadata    = "ISM-SCH15"
	CodeUnknown     = "ISM-SCH16"
	CodeType        = "ISM-SCH17"
	CodeEnum        = "ISM-SCH18"
	CodeRequired    = "ISM-SCH19"
	CodeUnsupported = "ISM-SCH20"
	CodeTwice       = "ISM-SCH21"
	CodeFault       = "ISM0202"
	CodeSkipped     = "ISM0203"
	CodeLater       = "ISM0204"
	CodeReserved    = "ISM0210"
)
