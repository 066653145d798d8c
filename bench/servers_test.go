//go:build servers

package bench

import (
	"testing"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// The whole benchmark, with little of everything.
func TestAllParts(t *testing.T) {
	if missing := peers.Missing(); len(missing) > 0 {
		conformance.Skip(t, "missing Debian packages: %v", missing)
	}
	for _, p := range Parts[1:] {
		t.Run(p.Name, func(t *testing.T) { tiny(t, p) })
	}
}
