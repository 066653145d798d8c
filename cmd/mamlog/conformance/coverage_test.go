package conformance

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestChecklist holds testdata/cases.txt against what there is: a case said to
// be a transcript is one, every transcript is in the list, and what is not
// tested says why.
func TestChecklist(t *testing.T) {
	unlisted := map[string]bool{} // "rooms muc_pagination"
	for kind, load := range map[string]func() ([]*Transcript, error){"transcript": Transcripts, "rooms": Rooms} {
		all, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range all {
			unlisted[kind+" "+tr.Name] = true
		}
	}
	exists := maps.Clone(unlisted)
	text, err := os.ReadFile("testdata/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	goTests := map[string]bool{}
	for _, dir := range []string{".", "../../../integrations"} {
		for _, name := range testsIn(t, dir) {
			goTests[name] = true
		}
	}
	covered, not := 0, 0
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, where, ok := strings.Cut(line, " | ")
		if !ok || seen[name] {
			t.Errorf("not understood, or twice: %s", line)
			continue
		}
		seen[name] = true
		if reason, ok := strings.CutPrefix(where, "not: "); ok {
			not++
			if reason == "" {
				t.Errorf("%s is not tested, without a reason", name)
			}
			continue
		}
		covered++
		kind, file, named := strings.Cut(where, " ")
		if !named {
			file = name
		}
		switch {
		case exists[kind+" "+file]:
			delete(unlisted, kind+" "+file)
		case !named && goTests[where]:
		default:
			t.Errorf("%s: there is no %s", name, where)
		}
	}
	for name := range unlisted {
		t.Errorf("the transcript %s is not in cases.txt", name)
	}
	t.Logf("%d cases tested, %d not, each with its reason", covered, not)
}

// testsIn are the names of the Go tests in a directory.
func testsIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
