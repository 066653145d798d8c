package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"mamlog/admin"
	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/cmd/mamlog/config"
)

// offline says what a command needs of the stores where no server runs.
type offline struct {
	create  bool // make them if there are none
	archive bool // decide and query, not only accounts and maintenance
	remake  bool // make projections anew that can't be opened
}

// withClient calls do with a client of the admin API: of the server that runs,
// or where none does, of a service in this process on the stores it has opened.
func (a *app) withClient(ctx context.Context, need offline, do func(adminv1connect.AdminServiceClient) error) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	client, err := admin.Dial(c.AdminSocket)
	if err == nil {
		return failed(do(client))
	}
	if !errors.Is(err, admin.ErrNoServer) {
		return &failure{exitFailed, err}
	}
	s, err := a.openOffline(c, need)
	if err != nil {
		return &failure{exitFailed, err}
	}
	err = a.serveMyself(ctx, s, need, do)
	if closeErr := s.Close(); closeErr != nil && err == nil {
		err = fmt.Errorf("close the stores: %w", closeErr)
	}
	return failed(err)
}

func (a *app) openOffline(c *config.Config, need offline) (*stores, error) {
	var bars []*progress
	o := openOptions{
		logger: newLogger(a.err, "console", zapcore.WarnLevel),
		create: need.create,
		remake: need.remake,
		progress: func(store string) func(int) {
			p := a.newProgress("read the log of " + store)
			bars = append(bars, p)
			return p.at
		},
	}
	s, err := openStores(c, o)
	for _, p := range bars {
		p.done()
	}
	var locked *lockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("%w, but no server answers at %s\nIf that process is a server that is just starting or stopping, try again; if it has another admin.socket, name its configuration with --config", err, c.AdminSocket)
	}
	return s, err
}

func (a *app) serveMyself(ctx context.Context, s *stores, need offline, do func(adminv1connect.AdminServiceClient) error) error {
	logger := newLogger(a.err, "console", zapcore.WarnLevel)
	c := admin.Config{
		Hosts:    s.config.HostNames(),
		Main:     s.main.Projections,
		Accounts: s.accounts(),
		Stores:   s.all(),
		Logger:   logger,
	}
	if need.archive {
		var err error
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
