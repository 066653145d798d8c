package admin

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
)

// GetRetention tells how much of a user's archive is kept.
func (s *Service) GetRetention(ctx context.Context, r *connect.Request[adminv1.GetRetentionRequest]) (*connect.Response[adminv1.GetRetentionResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	if err := s.mustLive(owner); err != nil {
		return nil, err
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "retention"); err != nil {
		return nil, err
	}
	inForce, own, err := s.Archive.Retention(owner)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.GetRetentionResponse{InForce: inForce, Own: own}), nil
}

// SetRetention sets what the request names, and leaves the rest.
func (s *Service) SetRetention(ctx context.Context, r *connect.Request[adminv1.SetRetentionRequest]) (*connect.Response[adminv1.SetRetentionResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	if err := s.mustLive(owner); err != nil {
		return nil, err
	}
	if r.Msg.GetExpiresAfter().GetValue() > math.MaxInt32*10 {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d seconds are too many", r.Msg.GetExpiresAfter().GetValue()))
	}
	// The answer shows also what is not changed.
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "retention, to set it"); err != nil {
		return nil, err
	}
	s.preferences.Lock()
	defer s.preferences.Unlock()
	_, own, err := s.Archive.Retention(owner)
	if err != nil {
		return nil, err
	}
	after := new(log.Retention)
	if own != nil {
		after = proto.CloneOf(own)
	}
	if v := r.Msg.GetExpiresAfter(); v != nil {
		after.ExpiresAfterSeconds = nil
		if v.Value != nil {
			after.ExpiresAfterSeconds = proto.Int64(int64(v.GetValue()))
		}
	}
	if v := r.Msg.GetQuotaItems(); v != nil {
		after.QuotaItems = v.Value
	}
	if v := r.Msg.GetQuotaBytes(); v != nil {
		after.QuotaBytes = v.Value
	}
	if err := s.Archive.SetRetention(ctx, owner, after, Caller(ctx)); err != nil {
		return nil, err
	}
	inForce, own, err := s.Archive.Retention(owner)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.SetRetentionResponse{InForce: inForce, Own: own}), nil
}

// Expire deletes what is not to be kept, or tells what would go.
func (s *Service) Expire(ctx context.Context, r *connect.Request[adminv1.ExpireRequest]) (*connect.Response[adminv1.ExpireResponse], error) {
	if host := r.Msg.GetHost(); host != "" && !slices.Contains(s.Hosts, host) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s is none of this server's hosts (%s)", host, strings.Join(s.Hosts, ", ")))
	}
	s.running.Add(1)
	defer s.running.Done()
	runs, err := s.Archive.Expire(ctx, r.Msg.GetHost(), Caller(ctx), r.Msg.GetDryRun())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(runs, func(a, b xep0313.Expiring) int { return strings.Compare(a.Host, b.Host) })
	res := new(adminv1.ExpireResponse)
	for _, e := range runs {
		res.Hosts = append(res.Hosts, &adminv1.Expiring{
			Host: e.Host, Archives: e.Archives, Expired: amount(e.Expired), Own: amount(e.Own), Quota: amount(e.Quota),
		})
	}
	return connect.NewResponse(res), nil
}

func amount(u projections.Usage) *adminv1.Amount {
	return &adminv1.Amount{Messages: u.Messages, Bytes: u.Bytes}
}

// Erase lets nothing of a user's be left but that it was there. Of whoever was
// deleted already the rest is erased too.
func (s *Service) Erase(ctx context.Context, r *connect.Request[adminv1.EraseRequest]) (*connect.Response[adminv1.EraseResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	s.running.Add(1)
	defer s.running.Done()
	order := func() error { return s.Archive.OrderErasure(ctx, owner, Caller(ctx)) }
	if s.local(owner) {
		err = s.Accounts.EndSubscriptions(ctx, owner, order)
	} else {
		err = order()
	}
	if err != nil {
		return nil, err
	}
	erased, err := s.Archive.Erase(context.WithoutCancel(ctx), owner, Caller(ctx))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.EraseResponse{Erased: erased}), nil
}
