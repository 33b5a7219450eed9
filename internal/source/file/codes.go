package file

import (
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
)

// The codes of what keeping a folder can find. They are stable.
const (
	CodeKept      = "ISM-SRC01"
	CodeUnread    = "ISM-SRC02"
	CodeVanished  = "ISM-SRC03"
	CodeTwice     = "ISM-SRC04"
	CodeTwoMeshes = "ISM-SRC05"
)

// Codes is the table of the codes of this package.
var Codes = []istioyaml.Code{
	{Code: CodeKept, Severity: finding.Warning, Catches: "an object that cannot be read and stays as it last was"},
	{Code: CodeUnread, Severity: finding.Error, Catches: "a file or folder that cannot be read"},
	{Code: CodeVanished, Severity: finding.Error, Catches: "every file gone at once; the last good state stays"},
	{Code: CodeTwice, Severity: finding.Error, Catches: "one object written in two files; the one in effect stays"},
	{Code: CodeTwoMeshes, Severity: finding.Error, Catches: "more than one Mesh; the one in effect stays"},
}
