package door

import (
	"time"

	"golang.org/x/time/rate"
)

// Method is what may happen by one method. The zero Method is for nobody.
type Method struct {
	// Who may call it.
	Who Kind
	// Only says of these whether they may; nil: all.
	Only func(Caller) bool
	// Deny is what others are told.
	Deny string
	// Bytes bound one message of the caller's. They are compared before the message is read.
	Bytes int
	// Rate and Burst bound the calls of one caller, or of one stranger's address, in a second. Zero: no bound. This and
	// the next five do not bind a Local.
	Rate  rate.Limit
	Burst int
	// AtOnce bounds the calls of one caller, or of one stranger's address, that are under way. Zero: no bound.
	AtOnce int
	// Share names methods whose calls count together against the bounds above and the next. Empty: this method's alone.
	Share string
	// Together has all callers count as one against Rate and AtOnce.
	Together bool
	// InAll bounds the calls of all callers that are under way. Zero: no bound.
	InAll int
	// Life bounds one call. Zero: no bound.
	Life time.Duration
	// Action is what a call is recorded as. Every method has one, since refusals are recorded of all.
	Action string
	// Recorded says that each call is recorded, before it is carried out and with its outcome, and that it is not
	// carried out when it cannot be recorded. Describe says what it is done to.
	Recorded bool
	Describe func(request any) (object, detail string)
	// Vital calls are carried out all the same.
	Vital bool
	// Itself says that the method records its refusals itself, since it knows more of them than their answer tells.
	Itself bool
}

// Methods are methods by service and name.
type Methods map[string]map[string]Method

// Table has methods by full name, "/<service>/<method>".
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

// Describe makes a Method's Describe of a function of one type of request.
func Describe[Req any](f func(*Req) (object, detail string)) func(any) (string, string) {
	return func(request any) (string, string) {
		r, ok := request.(*Req)
		if !ok {
			return "", ""
		}
		return f(r)
	}
}
