package peers

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed ejabberd.yml.tmpl
var ejabberdConfig string

// ejabberd is run without ejabberdctl, which Debian lets only root and one user
// run.
type ejabberd struct {
	config   string
	node     string
	distPort string // of the node, instead of a port mapper
	libs     string // ERL_LIBS
	http     string // host:port
}

// StartEjabberd runs Debian's ejabberd.
func StartEjabberd(ctx context.Context, o Options) (*Server, error) {
	s, err := newServer("ejabberd", &o)
	if err != nil {
		return nil, err
	}
	if o.Archive == Internal {
		return nil, errors.New("ejabberd has no archive in files")
	}
	s.WebSocketURL = "ws://" + s.WebSocketAddr + "/ws"
	if err := s.startEjabberd(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) startEjabberd(ctx context.Context, o Options) error {
	ebin, err := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.beam")
	if err != nil || len(ebin) == 0 {
		return errors.New("ejabberd's code is not where Debian puts it")
	}
	e := ejabberd{
		config: filepath.Join(s.Dir, "ejabberd.yml"), http: s.WebSocketAddr,
		libs: filepath.Dir(filepath.Dir(filepath.Dir(ebin[0]))),
	}
	dist, err := FreeAddr()
	if err != nil {
		return err
	}
	e.distPort = port(dist)
	e.node = "ejabberd" + e.distPort + "@localhost"
	s.server = e
	// A directory ejabberd/ebin on the code path would be taken for ejabberd's own.
	for _, dir := range []string{"spool", "logs", "beams"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	if o.Module != "" {
		if err := e.compile(s, o.Module); err != nil {
			return err
		}
	}
	if o.Archive == PostgreSQL {
		if s.Postgres, err = startPostgres(ctx); err != nil {
			return err
		}
		if _, err := s.Postgres.Run(ctx, nil, "--file", "/usr/share/ejabberd/sql/pg.sql"); err != nil {
			return err
		}
	}
	if o.Archive == SQLite {
		// ejabberd would make its tables with the first query, and lose what it asks before.
		cmd := exec.CommandContext(ctx, "sqlite3", filepath.Join(s.Dir, "ejabberd.sqlite"), ".read /usr/share/ejabberd/sql/lite.sql")
		if _, err := run(cmd); err != nil {
			return err
		}
	}
	if s.names, err = startNameserver(o.Remote); err != nil {
		return err
	}
	inetrc := fmt.Sprintf("{lookup, [native]}.\n{resolv_conf, \"\"}.\n{nameserver, {127,0,0,1}, %d}.\n", s.names.port())
	if err := os.WriteFile(filepath.Join(s.Dir, "inetrc"), []byte(inetrc), 0o600); err != nil {
		return err
	}
	err = writeFile(e.config, ejabberdConfig, map[string]any{
		"Options": o, "Server": s,
		"C2S": port(s.C2SAddr), "S2S": port(s.S2SAddr), "HTTP": port(s.WebSocketAddr), "Component": port(s.ComponentAddr),
		"Components": s.components(o), "Stock": o.Archive != None && o.Archive != Mamlog,
	})
	if err != nil {
		return err
	}
	return s.Start(ctx)
}

// compile makes the beams of a module's sources, which lie in dir or dir/src.
func (e ejabberd) compile(s *Server, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var sources []string
	for _, pattern := range []string{"*.erl", "src/*.erl"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		sources = append(sources, found...)
	}
	if len(sources) == 0 {
		return fmt.Errorf("no Erlang sources in %s", dir)
	}
	var includes []string
	for _, pattern := range []string{filepath.Join(e.libs, "ejabberd-*", "include"), "/usr/lib/erlang/lib/p1_xmpp-*/include"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		includes = append(includes, found...)
	}
	args := []string{"-o", filepath.Join(s.Dir, "beams"), "-I", filepath.Join(dir, "include")}
	for _, i := range includes {
		args = append(args, "-I", i)
	}
	cmd := exec.Command("erlc", append(args, sources...)...)
	cmd.Env = e.env(s)
	_, err = run(cmd)
	return err
}

func (e ejabberd) env(s *Server) []string {
	return append(os.Environ(),
		"HOME="+s.Dir, "ERL_LIBS="+e.libs, "ERL_INETRC="+filepath.Join(s.Dir, "inetrc"), "ERL_CRASH_DUMP_BYTES=0",
		"EJABBERD_CONFIG_PATH="+e.config, "EJABBERD_LOG_PATH="+filepath.Join(s.Dir, "logs", "ejabberd.log"))
}

// erl runs Erlang as a node that can find the others on this machine.
func (e ejabberd) erl(ctx context.Context, s *Server, node string, args ...string) *exec.Cmd {
	common := []string{
		"-noinput", "-sname", node, "-setcookie", "peers", "-start_epmd", "false", "-erl_epmd_port", e.distPort,
		"-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-pa", filepath.Join(s.Dir, "beams"),
	}
	cmd := exec.CommandContext(ctx, "erl", append(common, args...)...)
	cmd.Env, cmd.Dir = e.env(s), s.Dir
	return cmd
}

// command has the options that Debian's ejabberdctl would give.
func (e ejabberd) command(s *Server) *exec.Cmd {
	return e.erl(context.Background(), s, e.node, "+K", "true", "+P", "250000",
		"-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(s.Dir, "spool")), "-s", "ejabberd")
}

func (e ejabberd) ctl(ctx context.Context, s *Server, args ...string) *exec.Cmd {
	return e.erl(ctx, s, "ctl-"+e.node, append([]string{"-hidden", "-dist_listen", "false", "-s", "ejabberd_ctl", "-extra", e.node}, args...)...)
}

func (e ejabberd) ready(ctx context.Context, _ *Server) error { return e.call(ctx, "status", nil) }

// call runs one of ejabberd's commands over HTTP.
func (e ejabberd) call(ctx context.Context, command string, args map[string]string) error {
	if args == nil {
		args = map[string]string{}
	}
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.http+"/api/"+command, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", command, resp.Status, answer)
	}
	return err
}

func (e ejabberd) register(ctx context.Context, s *Server, users []string) error {
	return inParallel(users, func(u string) error {
		name, host := s.account(u)
		return e.call(ctx, "register", map[string]string{"user": name, "host": host, "password": Password})
	})
}

// Eval evaluates an Erlang expression in a node beside the running ejabberd;
// Node is bound to the name of ejabberd's. An expression that fails, fails the call.
func (s *Server) Eval(ctx context.Context, expression string) (string, error) {
	e, ok := s.server.(ejabberd)
	if !ok {
		return "", errors.New("only ejabberd runs Erlang")
	}
	return run(e.erl(ctx, s, "eval-"+e.node, "-hidden", "-dist_listen", "false", "-eval",
		"try Node='"+e.node+"', "+expression+", halt(0) catch C:R:S -> io:format(\"~P~n\", [{C,R,S}, 25]), halt(1) end."))
}
