package conformance

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// Transcript is one file of testdata/transcripts, as the README there
// describes it.
type Transcript struct {
	Name   string // the file's name without .txt: the case's name
	Config string // top-level YAML lines for the server
	Steps  []Step
	Users  []string // accounts that it needs, sorted
}

// Step is one line, with its continuation lines.
type Step struct {
	Line int
	Who  string // client label, "" where the step is nobody's
	Op   string // ">", "<", "<?", or a word
	Arg  string
}

var (
	stanzaLine = regexp.MustCompile(`^([a-z]+(?:/[a-z0-9]+)?)(>|<\?|<)\s+(<.*)$`)
	macroLine  = regexp.MustCompile(`^([a-z]+(?:/[a-z0-9]+)?) (asks|gets|fails):\s*(.*)$`)
	wordLine   = regexp.MustCompile(`^(connect|disconnect|drop|account|archive|expect|differ)\s*(.*)$`)
)

// ParseTranscript reads a transcript from text.
func ParseTranscript(name, text string) (*Transcript, error) {
	t := &Transcript{Name: name}
	users := map[string]bool{}
	scan := bufio.NewScanner(strings.NewReader(text))
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimRight(scan.Text(), " \t")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case line[0] == ' ' || line[0] == '\t':
			if len(t.Steps) == 0 {
				return nil, fmt.Errorf("%s:%d: continues nothing", name, n)
			}
			// The line break is dropped, so that layout adds no text to a stanza.
			t.Steps[len(t.Steps)-1].Arg += strings.TrimLeft(line, " \t")
			continue
		case strings.HasPrefix(line, "config: "):
			if len(t.Steps) > 0 {
				return nil, fmt.Errorf("%s:%d: config lines come first", name, n)
			}
			t.Config += strings.TrimPrefix(line, "config: ") + "\n"
			continue
		}
		s := Step{Line: n}
		if m := stanzaLine.FindStringSubmatch(line); m != nil {
			s.Who, s.Op, s.Arg = m[1], m[2], m[3]
		} else if m := macroLine.FindStringSubmatch(line); m != nil {
			s.Who, s.Op, s.Arg = m[1], m[2], m[3]
		} else if m := wordLine.FindStringSubmatch(line); m != nil {
			s.Op, s.Arg = m[1], m[2]
			if s.Op == "archive" {
				users["romeo"] = true // who writes the fixture
			}
			if f := strings.Fields(s.Arg); s.Op != "expect" && s.Op != "differ" && len(f) > 0 {
				users[strings.Split(f[0], "/")[0]] = true
			}
		} else {
			return nil, fmt.Errorf("%s:%d: not understood: %s", name, n, line)
		}
		t.Steps = append(t.Steps, s)
	}
	for u := range users {
		t.Users = append(t.Users, u)
	}
	sort.Strings(t.Users)
	return t, scan.Err()
}

// LoadTranscripts reads every transcript of a directory, sorted by name.
func LoadTranscripts(dir string) ([]*Transcript, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no transcripts in %s", dir)
	}
	var ts []*Transcript
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		t, err := ParseTranscript(strings.TrimSuffix(filepath.Base(f), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// Rename gives the transcript accounts of its own, since many share a server:
// juliet@ becomes juliet-7@ in whatever case it is written.
func (t *Transcript) Rename(suffix string) {
	if len(t.Users) == 0 {
		return
	}
	re := regexp.MustCompile(`(?i)\b(` + strings.Join(t.Users, "|") + `)@`)
	for i := range t.Steps {
		t.Steps[i].Arg = re.ReplaceAllString(t.Steps[i].Arg, "${1}-"+suffix+"@")
	}
}
