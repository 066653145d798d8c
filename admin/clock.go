package admin

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "mamlog/admin/v1"
)

// Clock tells what the age of messages is counted to.
func (s *Service) Clock(ctx context.Context, r *connect.Request[adminv1.ClockRequest]) (*connect.Response[adminv1.ClockResponse], error) {
	names, err := s.named("")
	if err != nil {
		return nil, err
	}
	m := &adminv1.ClockResponse{Clock: timestamppb.New(time.Now())}
	for _, name := range names {
		l := s.Stores[name].Log
		if r.Msg.GetAccept() {
			if err := l.AcceptTime(ctx, Caller(ctx)); err != nil {
				return nil, err
			}
		}
		t, held := l.RetentionTime()
		m.Stores = append(m.Stores, &adminv1.StoreClock{Store: name, RetentionTime: timestamppb.New(t), Held: held})
	}
	return connect.NewResponse(m), nil
}
