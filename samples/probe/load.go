package probe

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// load sends requests until ctx ends. Anything but an answer below 400 is a failure, except what the end itself cut
// off.
func load(ctx context.Context, l Load) Result {
	start := time.Now()
	var (
		mu  sync.Mutex // guards sum
		sum = Result{ServedBy: map[string]int{}}
		wg  sync.WaitGroup
	)
	for worker := range l.Workers {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: worker%2 == 1}}
		wg.Go(func() {
			for ctx.Err() == nil {
				// A request that has begun is finished and counted, whenever the end comes.
				var p phase
				r := get(p.traced(context.WithoutCancel(ctx)), client, l.HTTP)
				mu.Lock()
				sum.add(r, p.String())
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(l.Pause):
				}
			}
		})
	}
	wg.Wait()
	sum.Time, sum.Elapsed = time.Now(), time.Since(start)
	return sum
}

func (sum *Result) add(r Result, phase string) {
	began := r.Time.Add(-r.Elapsed)
	sum.Requests++
	sum.took(began, r.Elapsed)
	if r.Error == "" && r.Status < 400 {
		sum.ServedBy[r.Headers["served-by"]]++
		return
	}
	sum.fail(Failure{
		Time: began, Took: r.Elapsed, Phase: phase, Error: fmt.Sprintf("%d %s%.120s", r.Status, r.Error, r.Body),
	})
}
