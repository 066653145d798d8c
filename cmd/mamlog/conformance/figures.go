package conformance

import (
	"fmt"
	"os"
	"testing"
)

// Nightly tells whether the long form of a test is wanted.
func Nightly() bool { return os.Getenv("MAMLOG_NIGHTLY") != "" }

// Figures logs what a test has gone through, and adds it to what make nightly prints,
// for docs/reliability.md.
func Figures(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Log(text)
	name := os.Getenv("MAMLOG_FIGURES")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\t%s\n", t.Name(), text)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
