package conformance

import (
	"bufio"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Transcript is one file of testdata/transcripts, as the README there
// describes it.
type Transcript struct {
	Name   string // the file's name without .txt: the case's name
	Config string // options of the host, as YAML lines
	Steps  []Step
	Users  []string // accounts that it needs, sorted
	Rooms  []string // that it makes, sorted
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
	wordLine   = regexp.MustCompile(`^(connect|disconnect|drop|account|room|join|leave|affiliate|gone|archive|expect|differ)\s*(.*)$`)
)

// ParseTranscript reads a transcript from text.
func ParseTranscript(name, text string) (*Transcript, error) {
	t := &Transcript{Name: name}
	users, rooms := map[string]bool{}, map[string]bool{}
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
			f := append(strings.Fields(s.Arg), "")
			switch s.Op {
			case "room":
				rooms[f[0]] = true
			case "archive":
				users["romeo"] = true // who writes the fixture
				if !rooms[f[0]] {
					users[f[0]] = true
				}
			case "connect", "account":
				users[f[0]] = true
			}
		} else {
			return nil, fmt.Errorf("%s:%d: not understood: %s", name, n, line)
		}
		t.Steps = append(t.Steps, s)
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%s: nobody takes part", name)
	}
	t.Users, t.Rooms = slices.Sorted(maps.Keys(users)), slices.Sorted(maps.Keys(rooms))
	return t, scan.Err()
}

//go:embed testdata/transcripts testdata/rooms
var embedded embed.FS

// Transcripts returns the transcripts of accounts, Rooms those of rooms.
func Transcripts() ([]*Transcript, error) { return load("testdata/transcripts") }

// Rooms returns the transcripts that need a server with rooms.
func Rooms() ([]*Transcript, error) { return load("testdata/rooms") }

func load(dir string) ([]*Transcript, error) {
	sub, err := fs.Sub(embedded, dir)
	if err != nil {
		return nil, err
	}
	return LoadTranscripts(sub)
}

// LoadTranscripts reads every transcript of a directory, sorted by name.
func LoadTranscripts(dir fs.FS) ([]*Transcript, error) {
	files, err := fs.Glob(dir, "*.txt")
	if err != nil {
		return nil, err
	}
	var ts []*Transcript
	for _, f := range files {
		text, err := fs.ReadFile(dir, f)
		if err != nil {
			return nil, err
		}
		t, err := ParseTranscript(strings.TrimSuffix(f, ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

var testDomain = regexp.MustCompile(`(?i)\b(rooms\.)?test\.example\b`)

// on returns the steps as they are played on a host: with its domains, and with
// accounts and rooms of their own, since many transcripts share a server.
// juliet@ becomes juliet-7@ in whatever case it is written.
func (t *Transcript) on(h Host, suffix string) []Step {
	steps := slices.Clone(t.Steps)
	own := regexp.MustCompile(`(?i)\b(` + strings.Join(append(slices.Clone(t.Users), t.Rooms...), "|") + `)@`)
	for i := range steps {
		s := own.ReplaceAllString(steps[i].Arg, "${1}-"+suffix+"@")
		steps[i].Arg = testDomain.ReplaceAllStringFunc(s, func(m string) string {
			domain := h.Domain
			if len(m) > len(Domain) {
				domain = h.Rooms
			}
			if m != strings.ToLower(m) {
				domain = strings.ToUpper(domain)
			}
			return domain
		})
	}
	return steps
}
