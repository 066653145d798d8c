package conformance

import (
	"os"
	"strings"
	"testing"
)

// TestChecklist holds testdata/cases.txt against what there is: a case said to
// be a transcript is one, every transcript is in the list, and what is not
// tested says why.
func TestChecklist(t *testing.T) {
	all, err := LoadTranscripts("testdata/transcripts")
	if err != nil {
		t.Fatal(err)
	}
	unlisted := map[string]bool{}
	for _, tr := range all {
		unlisted[tr.Name] = true
	}
	text, err := os.ReadFile("testdata/cases.txt")
	if err != nil {
		t.Fatal(err)
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
		file, isTranscript := strings.CutPrefix(where, "transcript")
		if file = strings.TrimSpace(file); file == "" {
			file = name
		}
		switch {
		case isTranscript:
			if _, err := os.Stat("testdata/transcripts/" + file + ".txt"); err != nil {
				t.Errorf("%s: there is no transcript %s", name, file)
			}
			delete(unlisted, file)
		case !goTests[where]:
			t.Errorf("%s: there is no test %s", name, where)
		}
	}
	for name := range unlisted {
		t.Errorf("the transcript %s is not in cases.txt", name)
	}
	t.Logf("%d cases tested, %d not, each with its reason", covered, not)
}

// goTests are the tests that cases.txt may name.
var goTests = map[string]bool{"TestCases": true, "TestRetention": true, "TestSlixmpp": true}
