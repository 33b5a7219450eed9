package model

import "time"

// RequestMatch matches a request when each field that is set matches. The zero value matches every request. Values are
// compared as the caller's program sends them, case-sensitively.
type RequestMatch struct {
	Path       Match // without the query; a template matches the spelling that policies compare
	Method     Match
	Authority  Match
	Headers    []NamedMatch
	NotHeaders []NamedMatch // one that matches excludes the request; an absent header counts as empty
	Query      []NamedMatch
}

// NamedMatch is a pattern for the value of a header, by lower-case name, or of a query parameter.
type NamedMatch struct {
	Name  string
	Match Match
}

// Actions say what happens to the requests of a route. The zero value forwards them unchanged.
type Actions struct {
	Redirect *Redirect // answers requests; nothing else applies then
	Rewrite  Rewrite
	Request  HeaderChanges
	Response HeaderChanges
	Timeout  time.Duration // of a request with all its retries; 0 means none
	Retries  *RetryLimit   // nil: only the limits of the mesh apply
	Mirrors  []Mirror
}

// Redirect sends the caller elsewhere. Empty fields keep what the request has.
type Redirect struct {
	Scheme    string
	Authority string
	Port      uint32
	Path      string
	Status    int // 301, 302, 303, 307 or 308; 0 means 301
}

// Rewrite changes a request's target. Empty fields change nothing.
type Rewrite struct {
	// Path replaces what the route's Match.Path matches: the whole path or, for a prefix, the prefix. Without a pattern
	// that is the leading "/". The query stays.
	Path      string
	Authority string
}

// HeaderChanges apply in this order: remove, set, add.
type HeaderChanges struct {
	Set    []Header // replaces all values
	Add    []Header // adds a value
	Remove []string
}

// Header is a header's name and literal value.
type Header struct{ Name, Value string }

// RetryLimit lowers the limits of the mesh. It does not change which requests may be retried: what no server has
// started, and safe methods.
type RetryLimit struct {
	Most   uint32        // retries; 0 means none
	PerTry time.Duration // for one attempt; 0 means no limit
}

// Mirror sends copies of requests to a destination and ignores the responses.
type Mirror struct {
	To         Destination
	PerMillion uint32 // of the requests
}
