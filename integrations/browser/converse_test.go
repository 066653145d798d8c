package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

var update = flag.Bool("update", false, "take docs/converse.png anew")

// readHistory is the whole of it: Juliet comes to her web client, opens the
// conversation that it has never seen, and scrolls up to its beginning.
func readHistory(t *testing.T, url string, s *peers.Server) *person {
	t.Helper()
	want := talk(t, s)
	p := openBrowser(t, url)
	// look says what is missing before all pages that were asked for are on the
	// screen, and the number of the uppermost message.
	look := func() (top int, missing string) {
		pages := p.seen()
		if len(pages) == 0 {
			return 0, "the archive was not asked"
		}
		last := pages[len(pages)-1]
		if last.answer == nil {
			return 0, "no answer has come"
		}
		if len(last.bodies) == 0 {
			return 0, fmt.Sprintf("the archive answered %s", last.answer)
		}
		texts := p.texts()
		top = slices.Index(want, last.bodies[0])
		if top < 0 || !slices.Equal(texts, want[top:]) {
			return 0, fmt.Sprintf("from %q on, there are %d messages:\n%s", last.bodies[0], len(texts), strings.Join(texts, "\n"))
		}
		return top, ""
	}

	p.logIn(s.WebSocketURL, "juliet@"+s.Host, peers.Password)
	p.openChat("romeo@" + s.Host)
	top := 0
	p.await("the newest messages", func() (missing string) {
		top, missing = look()
		return missing
	})
	unscrolled := len(p.seen())
	for top > 0 {
		p.await("an older page", func() string {
			above, missing := look()
			if missing == "" && above >= top {
				p.scrollUp()
				return fmt.Sprintf("the uppermost message is %q", want[above])
			}
			if missing == "" {
				top = above
			}
			return missing
		})
	}
	if n := len(p.seen()) - unscrolled; n < 3 {
		t.Errorf("only %d pages came by scrolling", n)
	}
	p.await("the first message in view", func() string {
		if p.firstInView() {
			return ""
		}
		p.scrollUp()
		return "it is above"
	})
	if texts := p.texts(); !slices.Equal(texts, want) {
		t.Errorf("in the end there are %d messages:\n%s", len(texts), strings.Join(texts, "\n"))
	}
	checkPages(t, p.seen(), "romeo@"+s.Host, want)
	for _, c := range p.complaints() {
		t.Errorf("on the console: %s", c)
	}
	return p
}

// checkPages: every page was of this conversation and joined the one before, and
// all together are the conversation, each message once.
func checkPages(t *testing.T, pages []page, with string, want []string) {
	t.Helper()
	// Where messages that waited on the server open the conversation, Converse.js
	// asks for the newest page several times at once.
	pages = slices.CompactFunc(pages, func(p, q page) bool { return p.before == q.before && slices.Equal(p.ids, q.ids) })
	var bodies []string
	ids := make(map[string]bool)
	for i, p := range pages {
		if p.with != with {
			t.Errorf("page %d is about %q", i+1, p.with)
		}
		for _, id := range p.ids {
			if ids[id] {
				t.Errorf("page %d has %s, which came before", i+1, id)
			}
			ids[id] = true
		}
		if i > 0 && p.before != pages[i-1].ids[0] {
			t.Errorf("page %d ends before %q, the one below begins with %q", i+1, p.before, pages[i-1].ids[0])
		}
		if last := i == len(pages)-1; p.complete() != last {
			t.Errorf("page %d of %d: complete is %v", i+1, len(pages), p.complete())
		}
		bodies = append(slices.Clone(p.bodies), bodies...)
	}
	if !slices.Equal(bodies, want) {
		t.Errorf("the pages have %d messages:\n%s", len(bodies), strings.Join(bodies, "\n"))
	}
}

// TestConverse: with its history on the host that mamlog brings along, and on
// servers that it is the archive of.
func TestConverse(t *testing.T) {
	t.Parallel()
	conformance.NeedDebian(t, "chromium")
	if _, err := exec.LookPath("npm"); err != nil { // it may come with another Node.js than Debian's
		conformance.NeedDebian(t, "npm")
	}
	binary, err := conformance.Binary()
	if err != nil {
		t.Fatal(err)
	}
	url := serveSite(t)
	t.Run("mamlog", func(t *testing.T) {
		t.Parallel()
		readHistory(t, url, start(t, peers.StartMamlog, peers.MamlogOptions{Binary: binary})).screenshot()
	})
	for _, attached := range []struct {
		name     string // also of the directory with its module
		start    func(context.Context, peers.Options) (*peers.Server, error)
		packages []string
		modules  []string
	}{
		{"prosody", peers.StartProsody, []string{"prosody", "lua-posix"}, []string{"pep"}},
		{"ejabberd", peers.StartEjabberd, []string{"ejabberd"}, nil},
	} {
		t.Run(attached.name, func(t *testing.T) {
			t.Parallel()
			conformance.NeedDebian(t, attached.packages...)
			s := start(t, attached.start, peers.Options{Archive: peers.Mamlog, Module: filepath.Join("..", attached.name), Modules: attached.modules})
			start(t, peers.StartMamlog, peers.MamlogOptions{Binary: binary, Links: []*peers.Server{s}})
			picture := readHistory(t, url, s).screenshot()
			if *update && attached.name == "prosody" && !t.Failed() {
				if err := os.WriteFile(filepath.Join("..", "..", "docs", "converse.png"), picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// start runs a server until the test ends, and shows its log if it failed.
func start[O any](t *testing.T, start func(context.Context, O) (*peers.Server, error), o O) *peers.Server {
	t.Helper()
	s, err := start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", s.Name, s.Log())
		}
	})
	return s
}

func TestMain(m *testing.M) {
	code := m.Run()
	conformance.RemoveBinary()
	os.Exit(code)
}
