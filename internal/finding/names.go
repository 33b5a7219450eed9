package finding

// Codes that several checks use, all about a single document.
const (
	Invalid      Code = "ISM-SCH01"
	Doubtful     Code = "ISM-SCH02"
	Syntax       Code = "ISM-SCH10"
	Encoding     Code = "ISM-SCH11"
	TooLarge     Code = "ISM-SCH12"
	DuplicateKey Code = "ISM-SCH13"
	UnknownKind  Code = "ISM-SCH14"
	Metadata     Code = "ISM-SCH15"
	UnknownField Code = "ISM-SCH16"
	WrongType    Code = "ISM-SCH17"
	UnknownValue Code = "ISM-SCH18"
	Required     Code = "ISM-SCH19"
	Unsupported  Code = "ISM-SCH20"
	Reserved     Code = "ISM0210"
)
