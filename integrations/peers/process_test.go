package peers

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestStopOfBrokenShutdown: a program whose shutdown broke off is killed without an
// error, as soon as that is seen in what it wrote since the signal.
func TestStopOfBrokenShutdown(t *testing.T) {
	const line = "/usr/lib/prosody/modules/mod_c2s.lua:469: attempt to call a nil value (method 'close')"
	p := process{log: new(logBuffer)}
	cmd := exec.Command("sh", "-c", `trap 'echo "$1"' TERM; echo ready; while :; do sleep 0.1; done`, "sh", line)
	if err := p.start(t.Context(), cmd, func(context.Context) error {
		if !strings.Contains(p.log.String(), "ready") {
			return context.DeadlineExceeded
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := p.log.size()
	if err := p.stop(syscall.SIGTERM, func() bool { return brokenStop.MatchString(p.log.since(before)) }); err != nil {
		t.Fatal(err)
	}
	if p.running() {
		t.Error("it still runs")
	}
	if got := p.log.since(before); strings.Contains(got, "ready") || !strings.Contains(got, line) {
		t.Errorf("since the signal it wrote %q", got)
	}
}
