package door

import (
	"time"

	"golang.org/x/time/rate"
)

// Method describes who may call a method and within which limits. The zero Method admits nobody.
type Method struct {
	// Who are the kinds of callers that may call it.
	Who Kind
	// Only restricts these further. nil allows all.
	Only func(Caller) bool
	// Deny is the message for everyone else.
	Deny string
	// Bytes limits one message of the caller. It is checked before the message is read.
	Bytes int
	// Rate and Burst limit the calls per second of one caller, or of one stranger's address. Zero means no limit. These
	// and the next five do not apply to a Local.
	Rate  rate.Limit
	Burst int
	// AtOnce limits the concurrent calls of one caller, or of one stranger's address. Zero means no limit.
	AtOnce int
	// Share names a group of methods that are counted together against Rate, Burst, AtOnce and InAll. Empty: this
	// method alone.
	Share string
	// Together counts all callers as one against Rate and AtOnce.
	Together bool
	// InAll limits the concurrent calls of all callers. Zero means no limit.
	InAll int
	// Life limits the duration of a call. Zero means no limit.
	Life time.Duration
	// Action is the name of a call in the record. Every method needs one, since all refusals are recorded.
	Action string
	// Recorded means that each call is recorded before it is carried out, and again with its outcome. It is not carried
	// out if it cannot be recorded. Describe returns its object and details.
	Recorded bool
	Describe func(request any) (object, detail string)
	// Vital calls are carried out even if they cannot be recorded.
	Vital bool
	// SelfRecorded means that the method records its own refusals, because it knows more about them than the door.
	SelfRecorded bool
}

// Methods maps service and method names to methods.
type Methods map[string]map[string]Method

// Table maps full names, "/<service>/<method>", to methods.
func Table(all ...Methods) map[string]Method {
	out := map[string]Method{}
	for _, services := range all {
		for service, own := range services {
			for name, m := range own {
				out["/"+service+"/"+name] = m
			}
		}
	}
	return out
}

// Describe adapts a function of one request type for Method.Describe.
func Describe[Req any](f func(*Req) (object, detail string)) func(any) (string, string) {
	return func(request any) (string, string) {
		r, ok := request.(*Req)
		if !ok {
			return "", ""
		}
		return f(r)
	}
}
