package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"mellium.im/xmpp/jid"

	"mamlog/admin"
	"mamlog/attach/c2s"
	"mamlog/attach/component"
	"mamlog/cmd/mamlog/config"
	"mamlog/log"
)

// stopWithin is how long what is under way at the end may take.
const stopWithin = 5 * time.Second

func newServeCommand(a *app) *cobra.Command {
	var demo bool
	var listen, webSocket string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until it gets SIGTERM or SIGINT: then it ends all sessions and links,
writes everything out and exits with 0. A second signal ends it at once; nothing that was
acknowledged is lost by that, or by a crash. SIGHUP lets it read the files of c2s.certificate
and c2s.key again; if they can't be read, the certificate that was in use stays in use.

A relative data_dir is looked up in the directory that the server is started in.
The log goes to standard error: lines for people on a terminal, JSON elsewhere.
Metrics in Prometheus' text format are at metrics.listen, if that is set, and
always on the admin socket:
  curl --unix-socket DATA_DIR/admin.sock http://mamlog/metrics

With --demo the configuration is data/mamlog.yaml, which is written if it isn't
there: the host localhost on 127.0.0.1:5222 and a WebSocket on 127.0.0.1:5280,
with the accounts juliet@localhost and romeo@localhost, both with the password
"demo". Nothing can be reached from other machines.`,
		Example: `  mamlog serve --config /etc/mamlog.yaml
  mamlog serve --demo
  mamlog serve --demo --listen 127.0.0.1:15222 --websocket-listen 127.0.0.1:15280`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if demo {
				if cmd.Flags().Changed("config") {
					return errors.New("--demo has a configuration of its own, so --config can't be given with it")
				}
				a.configFile = demoConfig
				if err := writeDemoConfig(); err != nil {
					return &failure{exitFailed, err}
				}
			}
			conf, err := a.loadConfig()
			if err != nil {
				return err
			}
			if err := override(conf, listen, webSocket); err != nil {
				return err
			}
			s := &server{app: a, config: conf, demo: demo}
			if err := s.run(cmd.Context()); err != nil {
				return &failure{exitFailed, err}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&demo, "demo", false, "run with a configuration and accounts to try it out, in ./data")
	c.Flags().Var((*textFlag)(&listen), "listen", "listen for clients on `ADDRESS` instead of c2s.listen")
	c.Flags().Var((*textFlag)(&webSocket), "websocket-listen", "listen for web clients on `ADDRESS` instead of c2s.websocket_listen")
	return c
}

// override puts the addresses of the command line in place of the configured
// ones.
func override(c *config.Config, listen, webSocket string) error {
	for _, o := range []struct {
		flag, address string
		to            *string
	}{{"--listen", listen, &c.C2S.Listen}, {"--websocket-listen", webSocket, &c.C2S.WebSocketListen}} {
		if o.address == "" {
			continue
		}
		if err := config.CheckListen(o.address); err != nil {
			return fmt.Errorf("%s: %w", o.flag, err)
		}
		if c.C2S.AllowPlaintext && !config.Loopback(o.address) {
			return fmt.Errorf("%s: %s can be reached from other machines, and c2s.allow_plaintext is set in %s", o.flag, o.address, c.File)
		}
		if len(c.LocalHosts()) == 0 {
			return fmt.Errorf("%s: all hosts in %s are on links, so there is none whose clients could connect here", o.flag, c.File)
		}
		*o.to = o.address
	}
	return nil
}

// server is one run of "mamlog serve".
type server struct {
	app    *app
	config *config.Config
	demo   bool

	logger  *zap.Logger
	metrics *prometheus.Registry
	stores  *stores
	clients *c2s.Server // nil: off
	links   *component.Links
	admin   *admin.Service

	adminListener, metricsListener net.Listener
}

// run serves until a signal comes or something fails.
func (s *server) run(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // gives a second signal back its power to end the process
	log.EnsureProcs()
	level, err := zapcore.ParseLevel(s.config.LogLevel)
	if err != nil {
		return err
	}
	s.logger = newLogger(s.app.err, s.config.LogFormat, level)
	s.metrics = prometheus.NewRegistry()
	s.stores, err = openStores(s.config, openOptions{
		logger: s.logger, create: true, fallback: true,
		progress: func(store string) func(int) { return s.catchUp(ctx, store) },
	})
	var locked *lockedError
	if errors.As(err, &locked) {
		return fmt.Errorf("%w\nStop it first, or set another data_dir in %s", err, s.config.File)
	}
	if err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return errors.Join(err, s.closeListeners(), s.stores.Close())
	}
	if err := s.announce(ctx); err != nil {
		return errors.Join(err, s.closeListeners(), s.stores.Close())
	}
	return s.serve(ctx)
}

// start makes everything that serves, without serving yet.
func (s *server) start(ctx context.Context) error {
	if err := registerMetrics(s.metrics, s.stores); err != nil {
		return err
	}
	archive, err := s.stores.archive(ctx, s.logger, s.metrics, true)
	if err != nil {
		return err
	}
	accounts := s.stores.accounts()
	if s.links, err = s.newLinks(archive); err != nil {
		return err
	}
	var kick func(jid.JID)
	if c := s.config.C2S; c.Listen != "" || c.WebSocketListen != "" {
		s.clients, err = c2s.New(c2s.Config{
			Listen: c.Listen, WebSocketListen: c.WebSocketListen, AllowPlaintext: c.AllowPlaintext,
			Certificate: c.Certificate, Key: c.Key, DataDir: s.config.DataDir,
			Hosts: s.config.LocalHosts(), Accounts: accounts, Archive: archive,
			Log: s.stores.main.Log, Projections: s.stores.main.Projections,
			Logger: s.logger, Metrics: s.metrics, Limits: clientLimits(s.config.Limits),
		})
		if err != nil {
			return s.explainListen(err, "c2s.listen and c2s.websocket_listen in "+s.config.File+", or --listen and --websocket-listen,")
		}
		kick = s.clients.Kick
	} else if local := s.config.LocalHosts(); len(local) > 0 {
		s.logger.Warn("these hosts are on no link, and clients can't connect here since c2s is not set: only commands reach their archives",
			zap.Strings("hosts", local))
	}
	book, err := s.stores.book()
	if err != nil {
		return err
	}
	s.admin = admin.New(admin.Config{
		Hosts: s.config.HostNames(),
		Main:  s.stores.main.Projections, MainLog: s.stores.main.Log, Book: book, Accounts: accounts, Archive: archive, Stores: s.stores.all(),
		Kick: kick, Links: s.links.Status, Metrics: promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}), Logger: s.logger,
	})
	if s.adminListener, err = admin.Listen(s.config.AdminSocket); err != nil {
		return err
	}
	if s.config.MetricsListen != "" {
		if s.metricsListener, err = net.Listen("tcp", s.config.MetricsListen); err != nil {
			return s.explainListen(fmt.Errorf("metrics: %w", err), "metrics.listen in "+s.config.File)
		}
	}
	return nil
}

// explainListen says what to do about an address that can't be listened on.
func (s *server) explainListen(err error, options string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w\nAnother program listens there: stop it, or choose another port; %s set the address", err, options)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w\nThis machine does not have that address; %s set it", err, options)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w\nPorts below 1024 need a privilege; %s set the address", err, options)
	}
	return err
}

func (s *server) closeListeners() error {
	var errs []error
	for _, l := range []net.Listener{s.adminListener, s.metricsListener} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// announce says where the server listens.
func (s *server) announce(ctx context.Context) error {
	fields := []zap.Field{zap.String("version", version().String()), zap.Strings("hosts", s.config.HostNames())}
	var clients, webClients net.Addr
	if s.clients != nil {
		clients, webClients = s.clients.Addr(), s.clients.WebSocketAddr()
	}
	for _, l := range []struct {
		name string
		addr net.Addr
	}{{"c2s", clients}, {"websocket", webClients}, {"metrics", addrOf(s.metricsListener)}} {
		if l.addr != nil {
			fields = append(fields, zap.Stringer(l.name, l.addr))
		}
	}
	if n := len(s.config.Links); n > 0 {
		fields = append(fields, zap.Int("links", n))
	}
	fields = append(fields, zap.String("admin", s.config.AdminSocket), zap.String("data_dir", s.config.DataDir))
	if s.demo && s.clients != nil {
		if err := s.welcome(ctx); err != nil {
			return err
		}
	}
	s.logger.Info("serving", fields...)
	return nil
}

func addrOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

// serve runs everything until ctx ends, or until something fails, and then stops
// the rest.
func (s *server) serve(ctx context.Context) error {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	adminServer := s.admin.Server()
	metricsServer := &http.Server{Handler: promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}), ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	run := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	if s.clients != nil {
		run("clients", func() error { return s.clients.Serve(running) })
	}
	run("links", func() error { return s.links.Serve(running) })
	run("admin socket", func() error { return adminServer.Serve(s.adminListener) })
	if s.metricsListener != nil {
		run("metrics", func() error { return metricsServer.Serve(s.metricsListener) })
	}
	run("reload", func() error { s.reload(running); return nil })
	run("checkpoints", func() error { s.admin.RunCheckpoints(running); return nil })
	run("expiry", func() error { s.admin.Archive.RunExpiry(running); return nil })
	run("memory", func() error { keepMemory(running, s.config.CacheSize); return nil })

	<-running.Done()
	cause := context.Cause(running)
	if ctx.Err() != nil {
		cause = nil
		s.logger.Info("stopping; another signal ends the process at once")
	}
	within, done := context.WithTimeout(context.Background(), stopWithin)
	defer done()
	if err := adminServer.Shutdown(within); err != nil {
		adminServer.Close()
	}
	metricsServer.Close()
	wg.Wait()
	for _, st := range s.stores.all() {
		st.Projections.EndMaintenance()
	}
	if err := s.admin.Wait(within); err != nil {
		// The stores can't be closed under it. What was acknowledged is on disk,
		// and what a rebuild had not finished is thrown away at the next start.
		s.logger.Warn("stopped in the middle of a rebuild or check; nothing is lost", zap.Error(err))
		return cause
	}
	s.admin.KeepCheckpoint()
	if err := s.stores.Close(); err != nil {
		return errors.Join(cause, fmt.Errorf("close the stores: %w", err))
	}
	if cause == nil {
		s.logger.Info("stopped")
	}
	return cause
}

// reload reads the certificate again at each SIGHUP, until ctx ends. Nothing else
// of the configuration is read again.
func (s *server) reload(ctx context.Context) {
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUp:
		}
		if s.clients == nil {
			s.logger.Info("SIGHUP: there is nothing to reload, since no client connects here")
		} else if err := s.clients.ReloadCertificate(); err != nil {
			s.logger.Error("SIGHUP: the certificate can't be reloaded; the one before stays in use", zap.Error(err))
		} else {
			s.logger.Info("SIGHUP: the certificate was reloaded, for connections that begin from now on")
		}
	}
}

// catchUp logs how far the projections are that have to be made from the log.
func (s *server) catchUp(ctx context.Context, store string) func(records int) {
	started := time.Now()
	told := started
	return func(records int) {
		if ctx.Err() != nil {
			// Nothing was served, so there is nothing to end; the next start
			// goes on from what is written by now.
			s.logger.Info("stopped before serving")
			os.Exit(exitOK)
		}
		if now := time.Now(); now.Sub(told) >= quietFor {
			told = now
			s.logger.Info("reading the log before serving", zap.String("store", store), zap.Int("records", records), zap.Duration("since", now.Sub(started).Round(time.Second)))
		}
	}
}
