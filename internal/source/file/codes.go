package file

// The codes of what keeping a folder can find; finding.Codes says what each catches.
const (
	CodeKept      = "ISM-SRC01"
	CodeUnread    = "ISM-SRC02"
	CodeVanished  = "ISM-SRC03"
	CodeTwice     = "ISM-SRC04"
	CodeTwoMeshes = "ISM-SRC05"
)
