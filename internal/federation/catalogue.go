package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/snapshot"
)

// MaxCatalogueBytes bounds a catalogue document.
const MaxCatalogueBytes = 256 << 10

// catalogueJSON is the wire form: names and ports, no addresses or hosts.
type catalogueJSON struct {
	Sequence uint64            `json:"sequence"`
	Services []json.RawMessage `json:"services"`
}

type offerJSON struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"`
}

// EncodeCatalogue encodes the services offered to a peer.
func EncodeCatalogue(sequence uint64, services []snapshot.OfferedService) ([]byte, error) {
	type doc struct {
		Sequence uint64                    `json:"sequence"`
		Services []snapshot.OfferedService `json:"services"`
	}
	if services == nil {
		services = []snapshot.OfferedService{}
	}
	return json.Marshal(doc{sequence, services})
}

// ParseCatalogue parses a peer's catalogue. A single invalid entry invalidates it.
func ParseCatalogue(raw []byte, now time.Time) (*snapshot.Catalogue, error) {
	if len(raw) > MaxCatalogueBytes {
		return nil, fmt.Errorf("the catalogue is larger than %d bytes", MaxCatalogueBytes)
	}
	if n := bytes.Count(raw, []byte("{")); n > peerrules.MaxOffered+1 { // before anything is decoded
		return nil, fmt.Errorf("the catalogue holds more than %d services", peerrules.MaxOffered)
	}
	var doc catalogueJSON
	if err := strictJSON(raw, &doc); err != nil {
		return nil, fmt.Errorf("the catalogue is not what it should be: %w", err)
	}
	switch {
	case doc.Sequence == 0:
		return nil, errors.New("the catalogue has no sequence number")
	case inFuture(doc.Sequence, now):
		return nil, errAhead(doc.Sequence, now)
	case doc.Services == nil:
		return nil, errors.New("the catalogue has no list of services")
	case len(doc.Services) > peerrules.MaxOffered:
		return nil, fmt.Errorf("the catalogue holds more than %d services", peerrules.MaxOffered)
	}
	services, err := parseOffers(doc.Services)
	if err != nil {
		return nil, err
	}
	return &snapshot.Catalogue{Sequence: doc.Sequence, Time: now, Services: services}, nil
}

func parseOffers(raw []json.RawMessage) ([]snapshot.OfferedService, error) {
	services := make([]snapshot.OfferedService, 0, len(raw))
	seen := make(map[[2]string]bool, len(raw))
	for i, r := range raw {
		var o offerJSON
		if err := strictJSON(r, &o); err != nil {
			return nil, fmt.Errorf("service %d of the catalogue: %w", i+1, err)
		}
		key := [2]string{o.Namespace, o.Name}
		switch {
		case !isLabel(o.Name):
			return nil, fmt.Errorf("service %d of the catalogue: its name is no DNS label", i+1)
		case !isLabel(o.Namespace):
			return nil, fmt.Errorf("service %d of the catalogue: its namespace is no DNS label", i+1)
		case o.Port == 0:
			return nil, fmt.Errorf("service %d of the catalogue: its port is 0", i+1)
		case reserved.Port(o.Port) != "":
			return nil, fmt.Errorf("service %d of the catalogue: its port is %s", i+1, reserved.Port(o.Port))
		case o.Protocol != "HTTP" && o.Protocol != "HTTP2" && o.Protocol != "GRPC" && o.Protocol != "TCP":
			return nil, fmt.Errorf("service %d of the catalogue: its protocol is none of HTTP, HTTP2, GRPC, TCP", i+1)
		case seen[key]:
			return nil, fmt.Errorf("service %d of the catalogue: %s/%s stands there twice", i+1, o.Namespace, o.Name)
		}
		seen[key] = true
		services = append(services, snapshot.OfferedService{
			Name: o.Name, Namespace: o.Namespace, Port: o.Port, Protocol: o.Protocol,
		})
	}
	return services, nil
}
