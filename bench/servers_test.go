//go:build servers

package bench

import (
	"os"
	"testing"

	"mamlog/integrations/peers"
)

// The whole benchmark, with little of everything.
func TestAllParts(t *testing.T) {
	if missing := peers.Missing(); len(missing) > 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("missing Debian packages: %v", missing)
		}
		t.Skipf("missing Debian packages: %v", missing)
	}
	for _, p := range Parts[1:] {
		t.Run(p.Name, func(t *testing.T) { tiny(t, p) })
	}
}
