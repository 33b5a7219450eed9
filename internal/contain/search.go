package contain

import (
	"errors"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ErrNoCulprit means that Envoy rejects the configuration even when all candidates are closed.
var ErrNoCulprit = errors.New("none of the objects looked at is the cause")

// Refusal is Envoy's reason for rejecting a configuration.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// maxTrials bounds a search. Candidates that are undecided by then are all closed.
const maxTrials = 64

// Culprits finds a minimal set of candidates whose closing makes Envoy accept the configuration: each is needed, given
// the candidates before it. One culprit among n candidates takes about log2 n trials, and so does each further one. Of
// two objects that are fatal only together, the later one in the list is returned. lives tries a configuration in which
// the given objects are closed; its error ends the search.
//
// whole reports that the search was cut short and that every candidate not known to be harmless was returned.
func Culprits(
	candidates []snapshot.Key, lives func(closed []snapshot.Key) (bool, error),
) (culprits []snapshot.Key, whole bool, err error) {
	trials := 0
	// with tries the configuration with only the first n candidates in force, minus the known culprits.
	with := func(n int) (bool, error) {
		trials++
		return lives(append(culprits[:len(culprits):len(culprits)], candidates[n:]...))
	}
	if ok, err := with(len(candidates)); ok || err != nil {
		return nil, false, err
	}
	if ok, err := with(0); !ok || err != nil {
		if err == nil {
			err = ErrNoCulprit
		}
		return nil, false, err
	}
	good := 0 // with(good) is accepted
	for {
		bad := len(candidates) // with(bad) is rejected
		for bad-good > 1 {
			if trials >= maxTrials {
				return append(culprits, candidates[good:]...), true, nil
			}
			half := (good + bad) / 2
			ok, err := with(half)
			switch {
			case err != nil:
				return nil, false, err
			case ok:
				good = half
			default:
				bad = half
			}
		}
		culprits = append(culprits, candidates[bad-1])
		good = bad
		if good == len(candidates) {
			return culprits, false, nil
		}
		if ok, err := with(len(candidates)); ok || err != nil {
			return culprits, false, err
		}
	}
}
