package peers

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed prosody.cfg.lua.tmpl
var prosodyConfig string

//go:embed lua/mod_peers_remote.lua
var prosodyModules embed.FS

type prosody struct{ config string }

// StartProsody runs Debian's Prosody.
func StartProsody(ctx context.Context, o Options) (*Server, error) {
	s, err := newServer("prosody", &o)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]Archive{None, Internal, SQLite, Mamlog}, o.Archive) {
		return nil, fmt.Errorf("prosody has no archive on %s here", o.Archive)
	}
	s.WebSocketURL = "ws://" + s.WebSocketAddr + "/xmpp-websocket"
	config := filepath.Join(s.Dir, "prosody.cfg.lua")
	s.server = prosody{config}
	if err := errors.Join(os.MkdirAll(filepath.Join(s.Dir, "data"), 0o700), os.CopyFS(filepath.Join(s.Dir, "modules"), prosodyModules)); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	plugins := []string{filepath.Join(s.Dir, "modules", "lua")}
	if o.Module != "" {
		module, err := filepath.Abs(o.Module)
		if err != nil {
			return nil, err
		}
		plugins = append(plugins, module)
	}
	remote := make(map[string][2]string)
	for domain, addr := range o.Remote {
		host, p, _ := strings.Cut(addr, ":")
		remote[domain] = [2]string{host, p}
	}
	err = writeFile(config, prosodyConfig, map[string]any{
		"Options": o, "Server": s, "Root": os.Geteuid() == 0, "Plugins": plugins, "Remote": remote,
		"C2S": port(s.C2SAddr), "S2S": port(s.S2SAddr), "HTTP": port(s.WebSocketAddr), "Component": port(s.ComponentAddr),
		"Components": s.components(o), "Stock": o.Archive == Internal || o.Archive == SQLite,
	})
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (p prosody) command(s *Server) *exec.Cmd {
	return exec.Command("prosody", "-F", "--config", p.config)
}

func (prosody) ready(context.Context, *Server) error { return nil }

func (p prosody) ctl(ctx context.Context, _ *Server, args ...string) *exec.Cmd {
	if os.Geteuid() == 0 {
		args = append([]string{"--root"}, args...)
	}
	return exec.CommandContext(ctx, "prosodyctl", append([]string{"--config", p.config}, args...)...)
}

// register writes the files of the accounts, which Prosody reads at each login:
// prosodyctl takes a second for each.
func (prosody) register(_ context.Context, s *Server, users []string) error {
	for _, u := range users {
		name, host := s.account(u)
		dir := filepath.Join(s.Dir, "data", escape(host), "accounts")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		text := fmt.Sprintf("return {\n\t[\"password\"] = %q;\n};\n", Password)
		if err := os.WriteFile(filepath.Join(dir, escape(name)+".dat"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// StorePath is the file in which Prosody's internal storage keeps a list for a
// user, such as the archive.
func (s *Server) StorePath(user, store string) string {
	return filepath.Join(s.Dir, "data", escape(s.Host), escape(store), escape(user)+".list")
}

// escape makes a file name as Prosody's data manager does.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
