package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	"mellium.im/xmpp/jid"

	"mamlog/admin"
	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/cmd/mamlog/config"
)

// offline says what a command needs of the stores where no server runs.
type offline struct {
	create bool   // make them if there are none
	owner  string // decide for this user and query the archive: the store of the host
	audit  bool   // write down that something is read, whosever it is
	stores bool   // the stores of messages as such
	store  string // with stores: only this one; empty: all
	remake bool   // make projections anew that can't be opened
}

// opens tells which stores of messages are opened beside main. What isn't needed
// stays closed: it may be damaged, and the command works all the same.
func (o offline) opens(s config.Store) bool {
	if o.stores {
		return o.store == "" || o.store == s.Name
	}
	j, err := jid.Parse(o.owner)
	return err == nil && slices.Contains(s.Hosts, j.Domainpart())
}

// checkStore refuses a store that the configuration doesn't name, as the service
// does that has all of them open.
func (o offline) checkStore(c *config.Config) error {
	names := []string{config.MainStore}
	for _, s := range c.Stores() {
		names = append(names, s.Name)
	}
	if o.store == "" || slices.Contains(names, o.store) {
		return nil
	}
	slices.Sort(names)
	return &failure{exitUsage, fmt.Errorf("there is no store %q; there is %s", o.store, strings.Join(names, ", "))}
}

// withClient calls do with a client of the admin API: of the server that runs,
// or where none does, of a service in this process on the stores it has opened.
func (a *app) withClient(ctx context.Context, need offline, do func(adminv1connect.AdminServiceClient) error) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	var s *stores
	for patience := time.Now().Add(lockPatience); ; {
		client, err := admin.Dial(c.AdminSocket)
		if err == nil {
			return failed(do(client))
		}
		if !errors.Is(err, admin.ErrNoServer) {
			return &failure{exitFailed, err}
		}
		if err := need.checkStore(c); err != nil {
			return err
		}
		if s, err = a.openOffline(c, need); err == nil {
			break
		}
		var locked *lockedError
		if !errors.As(err, &locked) || time.Now().After(patience) {
			return &failure{exitFailed, err}
		}
		select {
		case <-ctx.Done():
			return &failure{exitFailed, err}
		case <-time.After(100 * time.Millisecond): // until the next look
		}
	}
	err = a.serveMyself(ctx, s, need, do)
	if closeErr := s.Close(); closeErr != nil && err == nil {
		err = fmt.Errorf("close the stores: %w", closeErr)
	}
	return failed(err)
}

// lockPatience is for how long a store that is in use is waited for: its server
// may just be starting, and not answer yet, or stopping.
const lockPatience = 5 * time.Second

func (a *app) openOffline(c *config.Config, need offline) (*stores, error) {
	var bars []*progress
	o := openOptions{
		logger: newLogger(a.err, "console", zapcore.WarnLevel),
		create: need.create,
		remake: need.remake,
		only:   need.opens,
		progress: func(store string) func(int) {
			p := a.newProgress("read the log of " + store)
			bars = append(bars, p)
			return p.at
		},
	}
	_, statErr := os.Stat(c.MainDir())
	s, err := openStores(c, o)
	for _, p := range bars {
		p.done()
	}
	var locked *lockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w, but no server answers at %s\nIf that process is a server with another admin.socket, name its configuration with --config", err, c.AdminSocket)
	}
	if err == nil && errors.Is(statErr, fs.ErrNotExist) {
		// A relative data_dir is another one in another working directory.
		dir := c.DataDir
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		fmt.Fprintf(a.err, "mamlog: made a new store in %s\n", harmless(dir))
	}
	return s, err
}

func (a *app) serveMyself(ctx context.Context, s *stores, need offline, do func(adminv1connect.AdminServiceClient) error) error {
	logger := newLogger(a.err, "console", zapcore.WarnLevel)
	book, err := s.book()
	if err != nil {
		return err
	}
	c := admin.Config{
		Hosts:    s.config.HostNames(),
		Main:     s.main.Projections,
		MainLog:  s.main.Log,
		Book:     book,
		Accounts: s.accounts(),
		Stores:   s.all(),
		Logger:   logger,
	}
	if need.owner != "" || need.audit {
		if c.Archive, err = s.archive(ctx, logger, nil, false); err != nil {
			return err
		}
		for _, ms := range s.messages {
			if ms.inMemory {
				fmt.Fprintf(a.err, "mamlog: no server is running, and the messages of %s are kept in its memory only: there are none now\n", strings.Join(ms.Hosts, ", "))
			}
		}
	}
	client, stop := admin.New(c).Local()
	defer stop()
	return do(client)
}

// completeUser completes the names of users, where a server runs to ask.
func (a *app) completeUser(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.users(cmd.Context(), toComplete), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) users(ctx context.Context, prefix string) (names []string) {
	c, err := config.Load(a.configFile)
	if err != nil {
		return nil
	}
	client, err := admin.Dial(c.AdminSocket)
	if err != nil {
		return nil
	}
	stream, err := client.ListUsers(ctx, request(&adminv1.ListUsersRequest{}))
	if err != nil {
		return nil
	}
	defer stream.Close()
	for stream.Receive() {
		for _, j := range stream.Msg().GetJids() {
			if strings.HasPrefix(j, prefix) {
				names = append(names, j)
			}
		}
	}
	return names
}
