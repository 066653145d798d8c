package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/attach/c2s"
)

// AddUser makes an account.
func (s *Service) AddUser(ctx context.Context, r *connect.Request[adminv1.AddUserRequest]) (*connect.Response[adminv1.AddUserResponse], error) {
	j, err := s.localAccount(r.Msg.GetJid())
	if err != nil {
		return nil, err
	}
	if err := checkPassword(r.Msg.GetPassword()); err != nil {
		return nil, err
	}
	err = s.Accounts.Add(ctx, j, r.Msg.GetPassword(), Caller(ctx))
	if errors.Is(err, c2s.ErrExists) {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("the user %s exists already; mamlog user passwd sets another password", j))
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.AddUserResponse{Jid: j.String()}), nil
}

// localAccount reads the bare JID of a user whose account is kept here.
func (s *Service) localAccount(text string) (jid.JID, error) {
	j, err := s.account(text)
	if err == nil && !s.local(j) {
		err = connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is on a link: its accounts are those of the XMPP server, which is where they are made and deleted", j.Domainpart()))
	}
	return j, err
}

func checkPassword(p string) error {
	if p == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the password is empty"))
	}
	return nil
}

// SetPassword gives an account another password.
func (s *Service) SetPassword(ctx context.Context, r *connect.Request[adminv1.SetPasswordRequest]) (*connect.Response[adminv1.SetPasswordResponse], error) {
	j, err := s.localAccount(r.Msg.GetJid())
	if err != nil {
		return nil, err
	}
	if err := checkPassword(r.Msg.GetPassword()); err != nil {
		return nil, err
	}
	err = s.Accounts.SetPassword(ctx, j, r.Msg.GetPassword(), Caller(ctx))
	if errors.Is(err, c2s.ErrNoAccount) {
		return nil, noUser(j)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.SetPasswordResponse{Jid: j.String()}), nil
}

// DeleteUser deletes an account and ends its sessions. Its archive is hidden from
// then on, and the server that runs, or the next that starts, erases it.
func (s *Service) DeleteUser(ctx context.Context, r *connect.Request[adminv1.DeleteUserRequest]) (*connect.Response[adminv1.DeleteUserResponse], error) {
	j, err := s.localAccount(r.Msg.GetJid())
	if err != nil {
		return nil, err
	}
	err = s.Accounts.Delete(ctx, j, Caller(ctx))
	if errors.Is(err, c2s.ErrNoAccount) {
		return nil, noUser(j)
	}
	if s.Kick != nil {
		s.Kick(j)
	}
	if err != nil {
		return nil, err
	}
	if s.Archive != nil { // otherwise the next start does that
		s.Archive.EraseDeleted()
	}
	return connect.NewResponse(&adminv1.DeleteUserResponse{Jid: j.String()}), nil
}

// usersPerMessage keeps the messages of a list small.
const usersPerMessage = 500

// ListUsers streams the accounts in order.
func (s *Service) ListUsers(ctx context.Context, r *connect.Request[adminv1.ListUsersRequest], stream *connect.ServerStream[adminv1.ListUsersResponse]) error {
	host := r.Msg.GetHost()
	if host != "" && !slices.Contains(s.Hosts, host) {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s is none of this server's hosts (%s)", host, strings.Join(s.Hosts, ", ")))
	}
	var jids []string
	send := func() error {
		if len(jids) == 0 {
			return nil
		}
		err := stream.Send(&adminv1.ListUsersResponse{Jids: jids})
		jids = nil
		return err
	}
	for j, err := range s.Main.Accounts(host) {
		if err != nil {
			return err
		}
		if jids = append(jids, j); len(jids) == usersPerMessage {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}
