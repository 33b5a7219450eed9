package sds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// Service is Envoy's secret discovery service over a Store, in both of its variants.
type Service struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	Store *Store
	// Only these accounts' certificates are served; an empty list means all of the Store's.
	Only []ServiceAccount
}

// subscription is what one stream asked for and was sent.
type subscription struct {
	names map[string]spiffe.ID
	sent  map[string]string // version by name
	nonce int
}

func newSubscription() *subscription {
	return &subscription{names: map[string]spiffe.ID{}, sent: map[string]string{}}
}

// add adds a name if it is this node's to serve; other names are never answered.
func (s *Service) add(sub *subscription, name string) {
	id, ok := spiffe.ID{}, s.serves(name)
	if ok {
		id, ok = s.Store.require(name)
	}
	if !ok {
		s.Store.cfg.Log.Warn("certificate not served: no such identity on this node", "name", name)
		return
	}
	sub.names[name] = id
}

func (s *Service) serves(name string) bool {
	if len(s.Only) == 0 {
		return true
	}
	_, account, ok := parseName(name)
	return ok && slices.Contains(s.Only, account)
}

// due returns the secrets of a subscription whose present version was not sent yet, sorted by name, and a channel that
// signals when to look again.
func (s *Service) due(sub *subscription) ([]*discovery.Resource, <-chan struct{}, error) {
	names := slices.Sorted(maps.Keys(sub.names))
	ids := make([]spiffe.ID, len(names))
	for i, n := range names {
		ids[i] = sub.names[n]
	}
	svids, changed := s.Store.current(ids)
	var due []*discovery.Resource
	for i, svid := range svids {
		if svid == nil || sub.sent[names[i]] == version(svid) {
			continue
		}
		r, err := resource(names[i], svid)
		if err != nil {
			return nil, nil, err
		}
		due = append(due, r)
		sub.sent[names[i]] = r.Version
	}
	return due, changed, nil
}

// StreamSecrets returns the state-of-the-world variant.
func (s *Service) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	sub := newSubscription()
	return serve(stream.Context(), stream.Recv, func(r *discovery.DiscoveryRequest) {
		s.nack(r.GetErrorDetail().GetMessage(), r.GetResourceNames())
		for _, n := range r.GetResourceNames() {
			if _, known := sub.names[n]; !known {
				s.add(sub, n)
			}
		}
	}, func() (<-chan struct{}, error) {
		due, changed, err := s.due(sub)
		if err != nil || len(due) == 0 {
			return changed, err
		}
		sub.nonce++
		resp := &discovery.DiscoveryResponse{
			VersionInfo: fmt.Sprint(sub.nonce), Nonce: fmt.Sprint(sub.nonce), TypeUrl: secretType,
		}
		for _, r := range due {
			resp.Resources = append(resp.Resources, r.Resource)
		}
		return changed, stream.Send(resp)
	})
}

// DeltaSecrets returns the incremental variant.
func (s *Service) DeltaSecrets(stream secret.SecretDiscoveryService_DeltaSecretsServer) error {
	sub := newSubscription()
	return serve(stream.Context(), stream.Recv, func(r *discovery.DeltaDiscoveryRequest) {
		s.nack(r.GetErrorDetail().GetMessage(), slices.Collect(maps.Keys(sub.names)))
		maps.Copy(sub.sent, r.GetInitialResourceVersions())
		for _, n := range r.GetResourceNamesSubscribe() {
			if _, again := sub.names[n]; again {
				delete(sub.sent, n) // asked again: send again
			}
			s.add(sub, n)
		}
		for _, n := range r.GetResourceNamesUnsubscribe() {
			delete(sub.names, n)
			delete(sub.sent, n)
		}
	}, func() (<-chan struct{}, error) {
		due, changed, err := s.due(sub)
		if err != nil || len(due) == 0 {
			return changed, err
		}
		sub.nonce++
		return changed, stream.Send(&discovery.DeltaDiscoveryResponse{
			Nonce: fmt.Sprint(sub.nonce), TypeUrl: secretType, Resources: due,
		})
	})
}

func (s *Service) nack(message string, names []string) {
	if message != "" {
		slices.Sort(names)
		s.Store.cfg.Log.Error("Envoy refuses a certificate", "names", names, "error", message)
	}
}

// serve answers one stream: take handles a request; send sends what is due and returns when to look again.
func serve[Req any](
	ctx context.Context, recv func() (*Req, error), take func(*Req), send func() (<-chan struct{}, error),
) error {
	requests := make(chan *Req)
	ended := make(chan error, 1)
	go func() { // ends with the stream, which ends when this function returns
		for {
			r, err := recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	var changed <-chan struct{}
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case r := <-requests:
			take(r)
		case <-changed:
		}
		var err error
		if changed, err = send(); err != nil {
			return err
		}
	}
}

func version(svid *identity.SVID) string {
	sum := sha256.Sum256(svid.Leaf().Raw)
	return hex.EncodeToString(sum[:8])
}

func resource(name string, svid *identity.SVID) (*discovery.Resource, error) {
	chain, err := svid.ChainPEM(strings.HasSuffix(name, wellknown.WithRootSuffix))
	if err != nil {
		return nil, err
	}
	key, err := svid.KeyPEM()
	if err != nil {
		return nil, err
	}
	packed, err := anypb.New(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)},
	}})
	if err != nil {
		return nil, fmt.Errorf("pack secret %s: %w", name, err)
	}
	return &discovery.Resource{Name: name, Version: version(svid), Resource: packed}, nil
}

func inline(b []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b}}
}
