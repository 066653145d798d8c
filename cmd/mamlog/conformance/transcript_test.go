package conformance

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestSuite plays every transcript about accounts, and every case. Those with the
// same options share a server.
func TestSuite(t *testing.T) {
	t.Parallel()
	all, err := Transcripts()
	if err != nil {
		t.Fatal(err)
	}
	servers := &servers{byConfig: map[string]*shared{}}
	t.Cleanup(func() { servers.stop(t) }) // runs when everything parallel is done
	Suite{Transcripts: all, Cases: Cases()}.Play(t, servers.host)
}

// servers has one for each configuration.
type servers struct {
	mu       sync.Mutex
	byConfig map[string]*shared
}

func (s *servers) host(t *testing.T, config string) (Host, error) {
	s.mu.Lock()
	on := s.byConfig[config]
	if on == nil {
		on = &shared{config: config}
		s.byConfig[config] = on
	}
	s.mu.Unlock()
	server, err := on.start()
	if err != nil {
		return Host{}, err
	}
	t.Cleanup(func() {
		if t.Failed() {
			on.failed.Store(true)
		}
	})
	return server.Host(), nil
}

func (s *servers) stop(t *testing.T) {
	for _, on := range s.byConfig {
		on.stop(t)
	}
}

// shared is a server that many cases use: the first one starts it.
type shared struct {
	config string
	once   sync.Once
	server *Server
	err    error
	failed atomic.Bool // a case failed, so the log is of interest
}

func (s *shared) start() (*Server, error) {
	s.once.Do(func() {
		var dir string
		if dir, s.err = os.MkdirTemp("", "mamlog-transcripts-"); s.err != nil {
			return
		}
		if s.server, s.err = NewServer(dir, s.config); s.err == nil {
			s.err = s.server.Start()
		}
	})
	return s.server, s.err
}

func (s *shared) stop(t *testing.T) {
	if s.server == nil {
		return
	}
	if err := s.server.Stop(); err != nil {
		t.Error(err)
	}
	if s.failed.Load() {
		t.Logf("the log of the server with configuration %q ends:\n%s", s.config, tail(s.server.Log(), 60))
	}
	if err := os.RemoveAll(s.server.Dir); err != nil {
		t.Error(err)
	}
}

// A transcript that passes whatever the server does would be worse than none:
// these must fail, with a message that shows what was wanted and what came.
func TestTranscriptsCanFail(t *testing.T) {
	s := startServer(t, "")
	for i, tc := range []struct{ name, text, want string }{
		{"wrong attribute", `
connect juliet balcony
juliet> <message to='juliet@test.example/balcony' type='headline' id='1'><body>x</body></message>
juliet< <message to='juliet@test.example/balcony' from='juliet@test.example/balcony' type='headline' id='2'><body>x</body></message>`,
			`message@id: want "2", got "1"`},
		{"missing element", `
connect juliet balcony
juliet> <message to='juliet@test.example/balcony' type='headline' id='1'><body>x</body></message>
juliet< <message to='juliet@test.example/balcony' from='juliet@test.example/balcony' type='headline' id='1'><body>x</body><y xmlns='z'/></message>`,
			`message/y: missing: <y xmlns='z'/>`},
		{"stanza that nobody takes", `
connect juliet balcony
juliet> <message to='juliet@test.example/balcony' type='headline' id='1'><body>x</body></message>`,
			`juliet/balcony got 1 stanzas that nobody expects`},
		{"expect nothing", `
connect juliet balcony
connect romeo orchard
romeo> <message to='juliet@test.example/balcony' type='headline' id='1'><body>x</body></message>
expect nothing
juliet< <message>...</message>`,
			`juliet/balcony got 1 stanzas that nobody expects`},
		{"wrong count", `
connect juliet balcony
archive juliet 2
juliet asks: max=10
juliet gets: m1..m2 count=3 index=0 complete=true`,
			`iq/fin/set/count: text: want "3", got "2"`},
		{"wrong order", `
connect juliet balcony
archive juliet 2
juliet asks: max=10
juliet gets: m2..m1 count=2 index=0 complete=true`,
			`({{m2}})`},
		{"wrong error", `
connect juliet balcony
juliet asks: nonsense=1
juliet fails: bad-request modify`,
			`iq/error@type: want "modify"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr, err := ParseTranscript("t", tc.text)
			if err != nil {
				t.Fatal(err)
			}
			err = tr.Run(t.Context(), s.Host(), fmt.Sprintf("f%d", i), 0)
			if err == nil {
				t.Fatal("passed, though it is wrong")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want an error with %q, got: %v", tc.want, err)
			}
		})
	}
}
