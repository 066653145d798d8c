package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/admin/v1/adminv1connect"
	"mamlog/attach/c2s"
	"mamlog/attach/component"
	"mamlog/audit"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// Store is a log with what is folded from it.
type Store struct {
	Log         *log.Log
	Projections *projections.Store
	InMemory    bool   // it is gone when the process is
	Dir         string // in the data directory
}

// Config says what a Service works on.
type Config struct {
	Hosts    []string           // whose users can be named
	Main     *projections.Store // accounts, preferences, policies
	MainLog  *log.Log           // of Main
	Accounts *c2s.Accounts
	Archive  *xep0313.Archive          // nil: no archives and preferences
	Stores   map[string]Store          // all of them by name, for rebuild, check and audit
	Book     *audit.Book               // signs the audit history
	Kick     func(jid.JID)             // ends the sessions of an account; may be nil
	Links    func() []component.Status // nil: no server is running, so there are none
	Metrics  http.Handler              // served under /metrics; may be nil
	Logger   *zap.Logger
}

// Service implements the admin API. Its methods are safe for concurrent use.
type Service struct {
	adminv1connect.UnimplementedAdminServiceHandler
	Config

	preferences sync.Mutex // held from reading preferences until they are set
	maintenance sync.Mutex // held by a rebuild or a check
	signing     sync.Mutex // held while a checkpoint is made
	running     sync.WaitGroup
}

// New returns a service.
func New(c Config) *Service {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return &Service{Config: c}
}

// Handler serves the API, and the metrics if there are any.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminServiceHandler(s, connect.WithReadMaxBytes(1<<20), connect.WithInterceptors(inWords{})))
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	return mux
}

// Server is an HTTP server for the API that knows who calls.
func (s *Service) Server() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ConnContext:       withCaller,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          zap.NewStdLog(s.Logger),
	}
}

// Wait returns when no rebuild and no check is running, or when ctx ends. Stores
// must not be closed under them.
func (s *Service) Wait(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return errors.New("a rebuild or a check is still running")
	}
}

// named are the names of all stores, or the one name.
func (s *Service) named(name string) ([]string, error) {
	names := slices.Sorted(maps.Keys(s.Stores))
	if name == "" {
		return names, nil
	}
	if _, ok := s.Stores[name]; !ok {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("there is no store %q; there is %s", name, strings.Join(names, ", ")))
	}
	return []string{name}, nil
}

// account reads the bare JID of a user of this server.
func (s *Service) account(text string) (jid.JID, error) {
	j, err := jid.Parse(text)
	switch {
	case err != nil:
		return j, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a JID: %w", text, err))
	case j.Localpart() == "":
		return j, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q names no user; a user is name@host, as in juliet@%s", text, s.Hosts[0]))
	case j.Resourcepart() != "":
		return j, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q has a resource; a user is %s", text, j.Bare()))
	case !slices.Contains(s.Hosts, j.Domainpart()):
		return j, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no user %s: %s is none of this server's hosts (%s)", j, j.Domainpart(), strings.Join(s.Hosts, ", ")))
	}
	return j, nil
}

// mustLive refuses a user who is not there any more, or of whom nothing is known:
// what is set or read now is not to be mixed up with another's of the same name.
func (s *Service) mustLive(j jid.JID) error {
	if ok, err := s.Accounts.Exists(j); ok || err != nil {
		return err
	}
	deleted, err := s.Main.DeletedAt(j.String())
	if err != nil {
		return err
	}
	if deleted != (ulid.ULID{}) && s.local(j) {
		return noUser(j)
	}
	return s.mustExist(j) // on a link, somebody may have got the name since
}

// local tells whether accounts of that host are kept here, and not at the other
// end of a link.
func (s *Service) local(j jid.JID) bool { return slices.Contains(s.Accounts.Hosts, j.Domainpart()) }

// mustExist refuses a user of whom nothing is known: no account, no preferences
// ever set, no message.
func (s *Service) mustExist(j jid.JID) error {
	if ok, err := s.Accounts.Exists(j); ok || err != nil {
		return err
	}
	for _, err := range s.Main.PreferenceHistory(j.String()) {
		return err
	}
	rows, all, err := s.Archive.Archive(j)
	if err != nil {
		return err
	}
	if _, _, ok, err := rows.Bounds(all.Class, all.Owner, all.NotBefore, all.Floor); ok || err != nil {
		return err
	}
	return noUser(j)
}

func noUser(j jid.JID) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no user %s", j))
}

// inWords gives errors that have none a code, so that callers can decide on them.
type inWords struct{}

func (inWords) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, r)
		return res, coded(err)
	}
}

func (inWords) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (inWords) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error { return coded(next(ctx, c)) }
}

func coded(err error) error {
	var (
		known    *connect.Error
		stanza   *stanza.Error
		notFound *projections.NotFoundError
	)
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.As(err, &stanza):
		text := stanza.Text
		if text == "" {
			text = stanza.Condition
		}
		return connect.NewError(connect.CodeInvalidArgument, errors.New(text))
	case errors.As(err, &notFound):
		return connect.NewError(connect.CodeOutOfRange, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	}
	if damage := log.Damaged(err); damage != nil {
		return connect.NewError(connect.CodeDataLoss, advised(damage))
	}
	return connect.NewError(connect.CodeInternal, err)
}

// advised says what is left to do where a file of a store is damaged.
func advised(damage *log.DamagedError) error {
	const (
		ofRows = "The log has all that is in it: 'mamlog rebuild' makes the projections anew"
		ofLog  = "It is a file of the log, and nothing else has all that is in that part: don't rebuild, keep the files, and go by docs/reliability.md, 'When a file is damaged'"
	)
	advice := ofLog
	if filepath.Base(filepath.Dir(filepath.Dir(damage.File))) == "projections" {
		advice = ofRows
	}
	return fmt.Errorf("%w\n%s is damaged. %s", damage, damage.File, advice)
}
