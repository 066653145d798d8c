package siege

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	conformance.RemoveBinary()
	os.Exit(code)
}

// seeded draws lots by MAMLOG_SEED, or by the clock.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MAMLOG_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAMLOG_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 5))
}

// server is a running process.
type server struct {
	*conformance.Server
	t *testing.T
}

// serve starts one for conformance.Domain, with further YAML in extra.
func serve(t *testing.T, extra string) *server {
	t.Helper()
	s, err := conformance.NewServer(t.TempDir(), extra)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, s)
}

func begin(t *testing.T, s *conformance.Server) *server {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			lines := strings.Split(s.Log(), "\n")
			t.Logf("the server's log:\n%s", strings.Join(lines[max(0, len(lines)-100):], "\n"))
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return &server{s, t}
}

func (s *server) users(names ...string) {
	s.t.Helper()
	for _, n := range names {
		if err := s.AddUser(s.t.Context(), n); err != nil {
			s.t.Fatal(err)
		}
	}
}

// dial logs in and becomes available.
func (s *server) dial(user, resource string) *conformance.Client {
	s.t.Helper()
	c, err := s.Dial(s.t.Context(), user, resource)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Drop)
	return c
}

// metrics asks the server for its numbers, by name with labels, over the admin
// socket.
func (s *server) metrics() map[string]float64 {
	s.t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.Dir, "data", "admin.sock"))
	}}}
	r, err := c.Get("http://mamlog/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	values := make(map[string]float64)
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if values[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
	}
	if err := lines.Err(); err != nil {
		s.t.Fatal(err)
	}
	return values
}

// sum adds up a metric over its labels.
func sum(values map[string]float64, name string) (n float64) {
	for k, v := range values {
		if k == name || strings.HasPrefix(k, name+"{") {
			n += v
		}
	}
	return n
}

// awaitErasures returns when so many users were erased since the server was started.
func (s *server) awaitErasures(n int) {
	s.t.Helper()
	for end := time.Now().Add(patience); int(sum(s.metrics(), "mamlog_erasures_total")) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d users were not erased", n)
		}
	}
}

// position is how many events are in all logs.
func (s *server) position() int { return int(sum(s.metrics(), "mamlog_log_records_total")) }

// freeAddr is a loopback address that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// condition of an answer: its type, or that and the condition of the error.
func condition(e *conformance.Element) string {
	x := e.Child("error")
	if x == nil {
		return e.Attr("type")
	}
	for _, c := range x.Children {
		if c.Name.Local != "text" {
			return x.Attr("type") + "/" + c.Name.Local
		}
	}
	return "error without a condition"
}

// streamEnd is the condition of the error with which a stream ended, "" if there
// is none in what was read of it.
func streamEnd(read string) string {
	_, rest, found := strings.Cut(read, "<stream:error")
	if !found {
		return ""
	}
	_, rest, _ = strings.Cut(rest, ">")
	rest = strings.TrimPrefix(rest, "<")
	return rest[:strings.IndexAny(rest+" ", " />")]
}

const (
	nsMAM    = "urn:xmpp:mam:2"
	nsAttach = "urn:mamlog:attach:1"
)
