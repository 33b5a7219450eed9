package load

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pace calls tick n times, one interval apart, each as close to its time as the kernel can: Go's own timers came up to
// 0.35 ms late. A late tick does not move the ones after it.
func pace(ctx context.Context, n int, interval time.Duration, tick func(i int, at time.Time)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, base := time.Now(), monotonic()
	for i := range n {
		if ctx.Err() != nil {
			return
		}
		after := time.Duration(i) * interval
		sleepUntil(base + after)
		tick(i, start.Add(after))
	}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // cannot happen: the clock exists on every Linux
	}
	return time.Duration(ts.Nano())
}

func sleepUntil(at time.Duration) {
	ts := unix.NsecToTimespec(at.Nanoseconds())
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}
