package check

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
)

func service(r *report, o *corev1.Service) {
	switch o.Spec.Type {
	case corev1.ServiceTypeExternalName:
		r.find(finding.Unsupported, "spec.type",
			"ExternalName is not supported", "write a ServiceEntry with location MESH_EXTERNAL and resolution DNS")
		return
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
	default:
		r.find(finding.UnknownValue, "spec.type",
			fmt.Sprintf("%q is not a type of service", finding.Clip(string(o.Spec.Type))),
			"remove it, or write ClusterIP")
	}
	r.matchLabels("spec.selector", o.Spec.Selector)
	r.serviceAddresses(o)
	if len(o.Spec.Ports) == 0 && o.Spec.ClusterIP != corev1.ClusterIPNone {
		r.find(finding.Required, "spec.ports", "a Service needs a port", "write at least one port")
	}
	r.atMost("spec.ports", len(o.Spec.Ports), maxServicePorts)
	names := map[string]bool{}
	numbers := map[corev1.ServicePort]bool{}
	for i, p := range o.Spec.Ports {
		path := fmt.Sprintf("spec.ports[%d]", i)
		r.servicePort(path, p, len(o.Spec.Ports) > 1)
		if p.Name != "" && names[p.Name] {
			r.find(finding.Invalid, path+".name",
				fmt.Sprintf("two ports are named %q", finding.Clip(p.Name)),
				"give each port its own name")
		}
		id := corev1.ServicePort{Port: p.Port, Protocol: p.Protocol}
		if id.Protocol == "" {
			id.Protocol = corev1.ProtocolTCP
		}
		if numbers[id] {
			r.find(finding.Invalid, path+".port",
				fmt.Sprintf("port %d is written twice", p.Port),
				"keep one of the two")
		}
		names[p.Name], numbers[id] = true, true
	}
}

// serviceAddresses checks the addresses in a Service's spec.
func (r *report) serviceAddresses(o *corev1.Service) {
	check := func(path, v string) {
		switch {
		case v == "" || v == corev1.ClusterIPNone:
		case !isIP(v):
			r.find(finding.Invalid, path,
				fmt.Sprintf("%q is not an IP address", finding.Clip(v)),
				"write an IP address, or leave it out")
		default:
			r.notReserved(path, v)
		}
	}
	check("spec.clusterIP", o.Spec.ClusterIP)
	check("spec.loadBalancerIP", o.Spec.LoadBalancerIP)
	for i, v := range o.Spec.ClusterIPs {
		check(fmt.Sprintf("spec.clusterIPs[%d]", i), v)
	}
	for i, v := range o.Spec.ExternalIPs {
		check(fmt.Sprintf("spec.externalIPs[%d]", i), v)
	}
}

func (r *report) servicePort(path string, p corev1.ServicePort, several bool) {
	r.ownPort(path+".port", int64(p.Port))
	switch {
	case p.Name == "" && several:
		r.find(finding.Required, path+".name",
			"each of several ports needs a name", "write name, for example name: http")
	case p.Name != "" && !isLabel(p.Name):
		r.find(finding.Invalid, path+".name",
			fmt.Sprintf("%q cannot be a port's name", finding.Clip(p.Name)),
			"use lower-case letters, digits and hyphens")
	}
	switch p.Protocol {
	case "", corev1.ProtocolTCP:
	case corev1.ProtocolUDP, corev1.ProtocolSCTP:
		r.find(finding.Doubtful, path+".protocol",
			fmt.Sprintf("%s does not cross the mesh; the port is not served", p.Protocol),
			"use TCP, or leave the port out")
	default:
		r.find(finding.UnknownValue, path+".protocol",
			fmt.Sprintf("%q is not a protocol", finding.Clip(string(p.Protocol))),
			"use TCP; say what is spoken over it with appProtocol")
	}
	switch t := p.TargetPort; {
	case t.Type == intstr.Int && t.IntVal != 0:
		r.ownPort(path+".targetPort", int64(t.IntVal))
	case t.Type == intstr.String && len(validation.IsValidPortName(t.StrVal)) > 0:
		r.find(finding.Invalid, path+".targetPort",
			fmt.Sprintf("%q cannot be a port's name", finding.Clip(t.StrVal)),
			"write a port's number or name")
	}
}
