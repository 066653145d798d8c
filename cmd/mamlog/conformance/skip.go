package conformance

import (
	"fmt"
	"os"
	"testing"
)

// Skip skips the test and says why, also to make test: go test names no skipped
// test where a package passes. With CI set it is a failure.
func Skip(t *testing.T, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	if name := os.Getenv("MAMLOG_SKIPS"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "skipped: %s: %s\n", t.Name(), why)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Skip(why)
}
