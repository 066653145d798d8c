package integrations

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// TestModuleInstall: ejabberd compiles and loads the module by its own installer, tells
// what is wrong with its options, and archives with it.
func TestModuleInstall(t *testing.T) {
	t.Parallel()
	k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == "ejabberd" })]
	conformance.NeedDebian(t, k.packages...)
	s := ownSite(t, k, siteOptions{before: peers.Mnesia}) // mod_mam, until it is replaced
	beams, err := filepath.Glob(filepath.Join(s.Dir, "beams", "*.beam"))
	if err != nil || len(beams) == 0 {
		t.Fatal(beams, err)
	}
	for _, b := range beams {
		if err := os.Remove(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(s.Dir, ".ejabberd-modules", "sources", "mod_mamlog"), os.DirFS(k.name)); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Ctl(t.Context(), "module_install", "mod_mamlog"); err != nil {
		t.Fatal(out, err)
	}
	where, err := s.Eval(t.Context(), `io:format("~s", [rpc:call(Node, code, which, [mod_mamlog])])`)
	if err != nil || !strings.Contains(where, ".ejabberd-modules") {
		t.Fatalf("the module is loaded from %q, %v", where, err)
	}

	instead := func(options string) func(string) string {
		return func(c string) string {
			return without(without(c, "mod_mamlog"), "mod_mam") + fmt.Sprintf("\nappend_host_config:\n  %q:\n    modules:\n      mod_mamlog: {%s}\n", s.Host, options)
		}
	}
	e := ejabberdCommands{s, t}
	config := filepath.Join(s.Dir, "ejabberd.yml")
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"component: \"" + s.ArchiveHost + "\", on_failure: never", "on_failure: spool", "component: \"" + s.ArchiveHost + "\", timeout: soon", "component: \"" + s.ArchiveHost + "\", colour: red"} {
		if err := e.configure(t.Context(), instead(bad)); err == nil {
			t.Errorf("ejabberd takes the options %s", bad)
		}
		if err := os.WriteFile(config, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.configure(t.Context(), instead("component: \""+s.ArchiveHost+"\"")); err != nil {
		t.Fatal(err)
	}
	p := s.pair(t, s.Host, "installed")
	for deadline := time.Now().Add(patience); !isOurs(p.say(t, "hello", 1)[0].id); {
		if time.Now().After(deadline) {
			t.Fatal("mamlog does not become the archive")
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}
