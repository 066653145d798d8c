// Package mamlog_test holds the one import rule of the tree; see ARCHITECTURE.md.
package mamlog_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Who may import whom, and why not more. A stanza's way leads down this list
// and a query's way back up; a package sees only what lies below it.
var mayImport = map[string][]string{
	"disk":                    {},                                                                                 // below the storage engine; knows no store
	"log":                     {"disk"},                                                                           // the truth depends on nothing of ours
	"audit":                   {},                                                                                 // hashes, signs and proves; knows neither stores nor events
	"projections":             {"audit", "disk", "log"},                                                           // a fold of the log and of nothing else
	"xep0313/stanza":          {},                                                                                 // XML alone
	"xep0313":                 {"log", "projections", "xep0313/stanza"},                                           // knows no sockets
	"attach/wire":             {"xep0313/stanza"},                                                                 // one connection; knows no archive
	"attach/admit":            {},                                                                                 // counts, and knows nobody
	"attach/c2s":              {"attach/admit", "attach/wire", "log", "projections", "xep0313", "xep0313/stanza"}, // knows no commands
	"attach/component":        {"attach/admit", "attach/wire", "log", "xep0313", "xep0313/stanza"},                // knows no stores: the archive is all it asks
	"admin/v1":                {"log"},                                                                            // generated; shows events of the log
	"admin/v1/adminv1connect": {"admin/v1"},                                                                       // generated
	"admin":                   {"audit", "admin/v1", "admin/v1/adminv1connect", "disk", "log", "projections", "xep0313", "xep0313/stanza", "attach/c2s", "attach/component"},
	"bench":                   {"attach/c2s", "disk", "integrations/peers", "log", "projections", "xep0313", "xep0313/stanza"}, // measures all of it
	"integrations":            {},                                                                                              // tests of real servers
	"integrations/browser":    {},                                                                                              // a test of a web client
	"integrations/peers":      {"admin/v1", "admin/v1/adminv1connect"},                                                         // real servers; knows nothing of ours
	"cmd/mamlog/config":       {"log", "xep0313", "xep0313/stanza"},                                                            // words to options
}

func TestImportRule(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], "mamlog/")
		if pkg == "mamlog" || strings.HasPrefix(pkg, "cmd/") && pkg != "cmd/mamlog/config" {
			continue // cmd wires, and sees everything
		}
		allowed, ok := mayImport[pkg]
		if !ok {
			t.Errorf("%s is not in the rule: say in ARCHITECTURE.md and here what it may import", pkg)
			continue
		}
		seen++
		for _, imported := range fields[1:] {
			ours, isOurs := strings.CutPrefix(imported, "mamlog/")
			if !isOurs {
				continue
			}
			found := false
			for _, a := range allowed {
				found = found || a == ours
			}
			if !found {
				t.Errorf("%s imports %s, which the rule forbids", pkg, ours)
			}
		}
	}
	if seen != len(mayImport) {
		t.Errorf("%d packages of the rule exist, it names %d", seen, len(mayImport))
	}
}
