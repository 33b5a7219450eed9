package demo

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatGrewIsNamed(t *testing.T) {
	before := map[string]footprint{"control": {rss: 50 << 10, files: 20, goroutines: 40}}
	for name, tt := range map[string]struct {
		after footprint
		want  string
	}{
		"within bounds": {footprint{rss: 114 << 10, files: 84, goroutines: 104}, ""},
		"memory":        {footprint{rss: 115 << 10, files: 20, goroutines: 40}, "from 50 to 115 MB"},
		"files":         {footprint{rss: 50 << 10, files: 85, goroutines: 40}, "from 20 to 85 open files"},
		"goroutines":    {footprint{rss: 50 << 10, files: 20, goroutines: 105}, "from 40 to 105 goroutines"},
	} {
		t.Run(name, func(t *testing.T) {
			err := reportGrowth(printer{out: io.Discard}, before, map[string]footprint{"control": tt.after})
			if tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), "control grew") ||
					!strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestGoroutinesAreReadFromMetrics(t *testing.T) {
	text := "# HELP go_goroutines Number of goroutines.\n# TYPE go_goroutines gauge\ngo_goroutines 42\ngo_threads 7\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		_ *http.Request,
	) {
		io.WriteString(w, text)
	}))
	defer server.Close()
	client := metricsClient{server.URL, server.Client()}
	if n, err := client.goroutines(t.Context()); n != 42 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	text = "go_threads 7\n"
	if _, err := client.goroutines(t.Context()); err == nil {
		t.Error("a process that does not tell was counted")
	}
}
