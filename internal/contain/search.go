package contain

import (
	"errors"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ErrNotAmong says that Envoy cannot live with the configuration even when every candidate is closed.
var ErrNotAmong = errors.New("none of the objects looked at is the cause")

// Refusal is why an Envoy could not live with a configuration, in its own words.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// maxTrials bounds a search. What is not found until then is closed altogether.
const maxTrials = 64

// Culprits finds among candidates those without which Envoy lives: closing them is enough, and each of them is needed
// for that, given the candidates before it. One culprit among n candidates takes some log2 n trials, each further one
// as many again. Of two objects that are fatal together the later one in the list is named. lives tries a configuration
// in which some objects are closed; an error of it ends the search.
//
// whole says that the search was cut short, and that every candidate not known to be harmless is among the culprits.
func Culprits(
	candidates []snapshot.Key, lives func(closed []snapshot.Key) (bool, error),
) (culprits []snapshot.Key, whole bool, err error) {
	trials := 0
	// with tries the first n candidates in force, the known culprits apart.
	with := func(n int) (bool, error) {
		trials++
		return lives(append(culprits[:len(culprits):len(culprits)], candidates[n:]...))
	}
	if ok, err := with(len(candidates)); ok || err != nil {
		return nil, false, err
	}
	if ok, err := with(0); !ok || err != nil {
		if err == nil {
			err = ErrNotAmong
		}
		return nil, false, err
	}
	good := 0 // with(good) lives
	for {
		bad := len(candidates) // with(bad) does not
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
