package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mellium.im/xmpp/jid"
)

// demoConfig is where the configuration of the demo lies.
var demoConfig = filepath.Join("data", "mamlog.yaml")

const demoText = `# The configuration of "mamlog serve --demo". data_dir is absolute, so
# that commands find the store from wherever they are started.
data_dir: %s
hosts: [localhost]
c2s:
  listen: "127.0.0.1:5222"
  websocket_listen: "127.0.0.1:5280"
  allow_plaintext: true   # only possible on loopback
`

const demoPassword = "demo"

var demoUsers = []string{"juliet@localhost", "romeo@localhost"}

// writeDemoConfig writes the configuration if it isn't there.
func writeDemoConfig() error {
	if err := os.MkdirAll(filepath.Dir(demoConfig), 0o700); err != nil {
		return fmt.Errorf("make the data directory of the demo: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(demoConfig))
	if err != nil {
		return fmt.Errorf("find the data directory of the demo: %w", err)
	}
	f, err := os.OpenFile(demoConfig, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the configuration of the demo: %w", err)
	}
	// A quoted string of Go is one of YAML.
	_, err = fmt.Fprintf(f, demoText, strconv.Quote(dir))
	return errors.Join(err, f.Close())
}

// welcome makes the accounts of the demo in a store that has none, and says how
// to go on.
func (s *server) welcome(ctx context.Context) error {
	fresh := true
	for _, err := range s.stores.main.Projections.Accounts("") {
		if err != nil {
			return err
		}
		fresh = false
		break
	}
	if fresh {
		accounts := s.stores.accounts()
		for _, u := range demoUsers {
			if err := accounts.Add(ctx, jid.MustParse(u), demoPassword, "mamlog serve --demo"); err != nil {
				return fmt.Errorf("make the account %s: %w", u, err)
			}
		}
	}
	w := bufio.NewWriter(s.app.out)
	fmt.Fprintf(w, "\nmamlog is running. Only this machine can reach it.\n\n")
	fmt.Fprintf(w, "  server       %s\n", s.clients.Addr())
	if addr := s.clients.WebSocketAddr(); addr != nil {
		fmt.Fprintf(w, "  web clients  ws://%s/xmpp-websocket\n", addr)
	}
	fmt.Fprintf(w, "  accounts     %s\n", strings.Join(demoUsers, ", "))
	fmt.Fprintf(w, "  password     %s\n", demoPassword)
	fmt.Fprintf(w, "  data         %s\n", s.config.DataDir)
	fmt.Fprint(w, `
Connect two XMPP clients with these accounts: set the server and port by hand, and
make encryption optional or accept the self-signed certificate. Let them talk. Then,
in another terminal in this directory:

`)
	file := demoConfig
	if filepath.IsAbs(s.config.DataDir) { // otherwise it only works from here
		if abs, err := filepath.Abs(file); err == nil {
			file = abs
		}
	}
	fmt.Fprintf(w, "  export MAMLOG_CONFIG=%s\n", shellWord(file))
	for _, try := range []struct{ args, what string }{
		{"query juliet@localhost", "what was archived for Juliet"},
		{"query juliet@localhost --last 1 --json", ""},
		{"prefs set juliet@localhost --never romeo@localhost", "archive nothing with Romeo"},
		{"prefs history juliet@localhost", "who changed what, and when"},
		{"user add nurse@localhost", "a third account"},
		{"--help", ""},
	} {
		line := fmt.Sprintf("  %s %-52s%s", os.Args[0], try.args, try.what)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(w, "\nCtrl-C stops it. To begin anew, delete the directory %s.\n\n", s.config.DataDir)
	return w.Flush()
}

// shellWord quotes s where a shell would read more than one word in it.
func shellWord(s string) string {
	if !strings.ContainsAny(s, " \t\n'\"\\$&|;<>()*?[]#~`!{}") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
