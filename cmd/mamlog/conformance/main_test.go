package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	removeBinary()
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

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

var install struct {
	once sync.Once
	out  []byte
}

// needDebian skips the test, by name and with the reason, where a Debian
// package is missing and this user may not install it. With CI set that is a
// failure.
func needDebian(t *testing.T, packages ...string) {
	t.Helper()
	missing := missingPackages(packages)
	if len(missing) == 0 {
		return
	}
	install.once.Do(func() {
		// Everything at once, so that the package lists are fetched once.
		install.out, _ = exec.Command("sh", filepath.Join("testdata", "install.sh")).CombinedOutput()
	})
	if missing = missingPackages(packages); len(missing) == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("Debian packages are missing: %s\n%s", strings.Join(missing, " "), tail(string(install.out), 20))
	}
	// go test names no skipped test where a package passes; make test does.
	if name := os.Getenv("MAMLOG_SKIPS"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "skipped: %s, without %s\n", t.Name(), strings.Join(missing, " "))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Skipf("Debian packages are missing: %s (apt-get install %s)", strings.Join(missing, " "), strings.Join(missing, " "))
}

func missingPackages(packages []string) (missing []string) {
	for _, p := range packages {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", p).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, p)
		}
	}
	return missing
}
