package istioyaml

import "isthmus.dev/isthmus/internal/finding"

// The codes of what reading configuration can find. They are stable: a code keeps its meaning for ever.
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

// Code describes one code.
type Code struct {
	Code     string
	Severity finding.Severity
	Catches  string
}

// Codes is the table of the codes of this package.
var Codes = []Code{
	{CodeInvalid, finding.Error, "a value that the kind does not allow"},
	{CodeDoubtful, finding.Warning, "legal, but surely not what was meant"},
	{CodeSyntax, finding.Error, "not YAML, or YAML beyond plain mappings, lists and scalars"},
	{CodeBytes, finding.Error, "bytes that are not UTF-8 text"},
	{CodeTooLarge, finding.Error, "larger or deeper than any real configuration"},
	{CodeDuplicate, finding.Error, "one key twice in a mapping"},
	{CodeUnknownKind, finding.Error, "apiVersion or kind missing or not known"},
	{CodeMetadata, finding.Error, "a name, namespace or label that cannot be"},
	{CodeUnknown, finding.Error, "a field that the kind does not have"},
	{CodeType, finding.Error, "a value of the wrong type"},
	{CodeEnum, finding.Error, "a value that is not in the field's list"},
	{CodeRequired, finding.Error, "a field that must be written"},
	{CodeUnsupported, finding.Error, "a field, value or security kind that Isthmus cannot enforce yet, so it refuses it"},
	{CodeTwice, finding.Error, "one object written twice in a file, so that neither counts"},
	{CodeFault, finding.Error, "an object at which Isthmus itself fails; what it selects is closed if it is of a security kind"},
	{CodeSkipped, finding.Info, "documents that are no matter of Isthmus's, such as Deployments; they are skipped"},
	{CodeLater, finding.Warning, "an Istio kind that is not carried out yet; the object is skipped"},
}
