package conformance

import (
	"fmt"
	"strings"
	"testing"
)

// TestQueryCommand: the command line shows what the archive shows.
func TestQueryCommand(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	sc := newScene(t, s.Host(), "q")
	for i := range 5 {
		send(t, sc.romeo, sc.juliet, fmt.Sprintf("line %d", i))
	}
	archive, err := sc.juliet.Walk("", 50)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(sc.ctx, "", "query", sc.juliet.Bare, "--json")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(archive) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(archive), out)
	}
	for i, l := range lines {
		for _, want := range []string{`"` + archive[i].ID + `"`, `"line ` + fmt.Sprint(i) + `"`, `"direction"`, `"with"`, `"stamp"`, `"stanza"`} {
			if !strings.Contains(l, want) {
				t.Errorf("line %d lacks %s: %s", i, want, l)
			}
		}
	}
}
