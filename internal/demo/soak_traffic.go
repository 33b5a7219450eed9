package demo

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"isthmus.dev/isthmus/samples/probe"
)

// traffic is the load, divided into stretches. Requests in an Envoy end when it is killed, so stretches with a kill are
// counted separately.
type traffic struct {
	w         *world
	customers []customer
	loads     []*ongoing // nil between stretches; the demo's own load, then one per customer
	counts    [][kinds]probe.Result
	losses    int           // requests lost with a server
	slowest   time.Duration // slowest recovery from the kill of an Envoy
	events    []event
}

// event is one past disturbance.
type event struct {
	name         string
	began, ended time.Time
}

// during names the disturbances that overlapped a request, or the last one before it.
func (t *traffic) during(began time.Time, took time.Duration) string {
	last, all := "before every disturbance", []string{}
	for _, e := range t.events {
		into := began.Sub(e.began).Seconds()
		switch {
		case e.began.After(began.Add(took)):
		case e.ended.Before(began):
			last = fmt.Sprintf("%.1f s after %q", began.Sub(e.ended).Seconds(), e.name)
		case into < 0:
			all = append(all, fmt.Sprintf("%.1f s before %q", -into, e.name))
		default:
			all = append(all, fmt.Sprintf("%.1f s into %q", into, e.name))
		}
	}
	if len(all) == 0 {
		return last
	}
	return strings.Join(all, ", ")
}

// failed describes the failed requests, similar ones once.
func (t *traffic) failed(r probe.Result) (lines []string) {
	alike := map[string]int{} // key: the text without its numbers, such as times and ports
	var keys []string
	for _, f := range r.Failed {
		during := t.during(f.Time, f.Took)
		key := numbers.ReplaceAllString(f.Phase+f.Error+during, "")
		if alike[key]++; alike[key] == 1 {
			keys, lines = append(keys, key), append(lines, f.String()+", "+during)
		}
	}
	for i, key := range keys {
		if more := alike[key] - 1; more > 0 {
			lines[i] += fmt.Sprintf(", and %d more like it", more)
		}
	}
	if more := r.Failures - len(r.Failed); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d that were not told one by one", more))
	}
	return lines
}

var numbers = regexp.MustCompile(`[0-9]+`)

// slowRequest is the duration above which a request is reported.
const slowRequest = 2 * time.Second

// clock is the format of times, in UTC.
const clock = "15:04:05.000"

// name returns the name of the nth load.
func (t *traffic) name(n int) string {
	if n == 0 {
		return "go"
	}
	return t.customers[n-1].name
}

// table formats the result of each load.
func (t *traffic) table() string {
	var b strings.Builder
	for n, c := range t.counts {
		fmt.Fprintf(&b, "  %-8s", t.name(n))
		for kind := range kinds {
			fmt.Fprintf(&b, " %9d %6d %7.3f s", c[kind].Requests, c[kind].Failures, c[kind].Slowest.Seconds())
		}
		b.WriteString("\n")
	}
	for n, c := range t.counts {
		if c[calm].Slowest > slowRequest {
			fmt.Fprintf(&b, "The slowest request of %s that no death excuses began at %s, %s.\n", t.name(n),
				c[calm].SlowestAt.UTC().Format(clock), t.during(c[calm].SlowestAt, c[calm].Slowest))
		}
	}
	const head = "           requests failed   slowest;  as a source died: failed, slowest;  as an Envoy was killed: failed, slowest\n"
	return head + b.String() + fmt.Sprintf("After an Envoy was killed all was answered again within %.1f s.\n\n",
		t.slowest.Seconds())
}

func (t *traffic) begin() error {
	if len(t.loads) > 0 {
		return nil
	}
	own, err := t.w.load()
	if err != nil {
		return err
	}
	t.loads = append(t.loads, own)
	for _, c := range t.customers {
		o, err := t.w.launch(c.command, c.in)
		if err != nil {
			return err
		}
		t.loads = append(t.loads, o)
	}
	return nil
}

// count ends the current stretch, if any, reports its failed requests and adds up its results.
func (t *traffic) count(ctx context.Context, say printer, kind int) error {
	defer t.end()
	for _, o := range t.loads {
		o.stop()
	}
	if t.counts == nil {
		t.counts = make([][kinds]probe.Result, 1+len(t.customers))
	}
	for n, o := range t.loads {
		r, err := o.next(ctx, 4*tryTimeout)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name(n), err)
		}
		for _, line := range t.failed(r) {
			say.note("failed: %s %s", t.name(n), line)
		}
		t.counts[n][kind].Join(r)
	}
	return nil
}

func (t *traffic) end() {
	for _, o := range t.loads {
		o.end()
	}
	t.loads = nil
}

func (t *traffic) verdict() error {
	var errs []error
	for n, c := range t.counts {
		switch {
		case c[calm].Requests == 0:
			errs = append(errs, fmt.Errorf("soak: %s sent no request", t.name(n)))
		case c[calm].Failures > 0:
			errs = append(errs, fmt.Errorf("soak: %d of %d requests of %s failed, the first: %s", c[calm].Failures,
				c[calm].Requests, t.name(n), c[calm].FirstFailure()))
		}
		bound := t.losses * maxLost
		if n == 0 {
			bound *= 8
		}
		if lost := c[loss]; lost.Failures > bound && t.name(n) != socketCustomer {
			errs = append(errs,
				fmt.Errorf("soak: %d of %d requests of %s failed as a source died, %d times, the first: %s",
					lost.Failures, lost.Requests, t.name(n), t.losses, lost.FirstFailure()))
		}
	}
	return errors.Join(errs...)
}
