package conformance

import (
	_ "embed"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

//go:embed testdata/install.sh
var installScript string

var install struct {
	once sync.Once
	out  []byte
}

// NeedDebian skips the test, by name and with the reason, where a Debian
// package is missing and this user may not install it. With CI set that is a
// failure.
func NeedDebian(t *testing.T, packages ...string) {
	t.Helper()
	missing := missingPackages(packages)
	if len(missing) == 0 {
		return
	}
	install.once.Do(func() {
		// Everything at once, so that the package lists are fetched once.
		cmd := exec.Command("sh", "-s")
		cmd.Stdin = strings.NewReader(installScript)
		install.out, _ = cmd.CombinedOutput()
	})
	if missing = missingPackages(packages); len(missing) == 0 {
		return
	}
	t.Logf("%s", tail(string(install.out), 20)) // tells why they could not be had
	Skip(t, "Debian packages are missing: %s (apt-get install %[1]s)", strings.Join(missing, " "))
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

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
