package conformance

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	RemoveBinary()
	os.Exit(code)
}

// startServer runs a server for this test, stops it at its end and shows its
// log if the test failed.
func startServer(t *testing.T, config string) *Server {
	t.Helper()
	s, err := NewServer(t.TempDir(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", tail(s.Log(), 200))
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}
