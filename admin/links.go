package admin

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "mamlog/admin/v1"
	"mamlog/attach/component"
)

// ListLinks tells how each link is doing.
func (s *Service) ListLinks(context.Context, *connect.Request[adminv1.ListLinksRequest]) (*connect.Response[adminv1.ListLinksResponse], error) {
	if s.Links == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("no server is running, so there are no links"))
	}
	res := &adminv1.ListLinksResponse{}
	for _, st := range s.Links() {
		l := &adminv1.Link{
			Server: st.Server, Component: st.Domain,
			State: linkStates[st.State], Since: timestamppb.New(st.Since),
			AppendsInFlight: uint64(st.InFlight), Appends: st.Appends, AppendsPerSecond: st.Rate,
			AppendP50: durationpb.New(st.P50), AppendP99: durationpb.New(st.P99),
			QueriesWaiting: uint64(st.Waiting), Queries: st.Queries,
		}
		if st.Fault != "" {
			l.Fault, l.FaultAt = st.Fault, timestamppb.New(st.FaultAt)
		}
		for _, h := range st.Hosts {
			lh := &adminv1.LinkedHost{
				Name: h.Name, Served: h.Served, Rooms: h.Rooms, Software: h.Software, ProtocolVersion: uint32(h.Version),
				SpoolMessages: uint64(h.Spool), SpoolBytes: uint64(h.SpoolBytes), Error: h.Fault, Delegated: h.Delegated,
			}
			if !h.LastHello.IsZero() {
				lh.LastHello = timestamppb.New(h.LastHello)
			}
			l.Hosts = append(l.Hosts, lh)
		}
		res.Links = append(res.Links, l)
	}
	return connect.NewResponse(res), nil
}

var linkStates = map[component.State]adminv1.LinkState{
	component.Connecting: adminv1.LinkState_LINK_STATE_CONNECTING,
	component.Up:         adminv1.LinkState_LINK_STATE_UP,
	component.Down:       adminv1.LinkState_LINK_STATE_DOWN,
}
