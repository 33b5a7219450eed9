package proc

import (
	"os"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	stat := []byte("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 9 0 100")
	status := []byte("Name:\ta\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t3\n")
	got, err := parse(stat, status)
	want := Usage{CPU: 1750 * time.Millisecond, RSS: 102400, PeakRSS: 204800}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := parse([]byte("42 (a) S 1"), status); err == nil {
		t.Error("a cut-off stat was accepted")
	}
}

func TestReadOfThisProcess(t *testing.T) {
	u, err := Read(os.Getpid())
	if err != nil || u.RSS < 1024 || u.PeakRSS < u.RSS {
		t.Errorf("%+v, %v", u, err)
	}
	if cpu, err := CPU(os.Getpid()); err != nil || cpu <= 0 {
		t.Errorf("%v, %v", cpu, err)
	}
}
