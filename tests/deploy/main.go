// Renders the chart as Helm does, and reads everything under deploy/ with the types of those who will: unknown fields are
// errors. Writes each ferry.yaml found within to the directory OUT, to be checked by ferry itself.
//
//	deploy DEPLOY OUT [update]    update rewrites deploy/kubernetes/ferry.yaml
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	compose "github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// Values that together reach every branch of the templates.
var variants = map[string]string{
	"default": ``,
	"full": `
image: {tag: "9.9.9"}
secret: ferry
env: [{name: HTTPS_PROXY, value: "http://proxy.corp:3128"}]
config:
  registries:
    docker.io: {accounts: [{username: mirror, password: {file: secrets/hub}}]}
  serve: {size_limit: 100GB, mirror: {domain: cr.example.cn}}
persistence: {storageClass: fast, size: 200Gi}
service: {type: LoadBalancer, port: 80, annotations: {a: b}}
ingress:
  enabled: true
  className: nginx
  annotations: {a: b}
  hosts: [cr.example.cn, "*.cr.example.cn"]
  tls: [{hosts: [cr.example.cn, "*.cr.example.cn"], secretName: tls}]
podAnnotations: {a: b}
nodeSelector: {disk: ssd}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {}}
`,
	"claim":   `persistence: {existingClaim: data}`,
	"without": `persistence: {enabled: false}`,
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: deploy DEPLOY OUT [update]")
	}
	deploy, out := os.Args[1], os.Args[2]
	documents := 0
	for name, values := range variants {
		for _, text := range render(filepath.Join(deploy, "helm/ferry"), values) {
			documents++
			if config, ok := read(name, text)["ferry.yaml"]; ok {
				write(filepath.Join(out, "helm-"+name+".yaml"), config)
			}
		}
	}
	plain := filepath.Join(deploy, "kubernetes/ferry.yaml")
	text := "# What `helm template ferry deploy/helm/ferry` prints.\n---\n" +
		strings.Join(render(filepath.Join(deploy, "helm/ferry"), ""), "\n---\n") + "\n"
	if len(os.Args) > 3 && os.Args[3] == "update" {
		write(plain, text)
	} else if there, err := os.ReadFile(plain); err != nil || string(there) != text {
		fail("%s is not what the chart renders (%v); run with `update`", plain, err)
	}
	project, err := compose.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  filepath.Join(deploy, "compose"),
		ConfigFiles: types.ToConfigFiles([]string{filepath.Join(deploy, "compose/compose.yaml")}),
		Environment: types.Mapping{},
	}, func(o *compose.Options) { o.SetProjectName("ferry", true) })
	if err != nil {
		fail("compose.yaml: %v", err)
	}
	fmt.Printf("deploy: %d documents of Kubernetes and %d services of Compose are understood\n", documents, len(project.Services))
}

// The documents that the chart becomes, in the order of their files.
func render(path, values string) []string {
	chart, err := loader.LoadDir(path)
	check("chart", err)
	given, err := chartutil.ReadValues([]byte(values))
	check("values", err)
	release := chartutil.ReleaseOptions{Name: "ferry", Namespace: "ferry", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, given, release, nil)
	check("values", err)
	rendered, err := engine.Engine{Strict: true}.Render(chart, all)
	check("templates", err)
	var names, texts []string
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if text := strings.TrimSpace(rendered[name]); text != "" && strings.HasSuffix(name, ".yaml") {
			texts = append(texts, text)
		}
	}
	return texts
}

// Reads a document as what it says it is, and returns what a ConfigMap holds.
func read(variant, text string) map[string]string {
	var kind struct{ Kind string }
	check(variant, yaml.Unmarshal([]byte(text), &kind))
	kinds := map[string]any{
		"ConfigMap":   &corev1.ConfigMap{},
		"Service":     &corev1.Service{},
		"StatefulSet": &appsv1.StatefulSet{},
		"Ingress":     &networkingv1.Ingress{},
	}
	object, known := kinds[kind.Kind]
	if !known {
		fail("%s: an object of kind %q", variant, kind.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		fail("%s: %s: %v\n%s", variant, kind.Kind, err, text)
	}
	switch object := object.(type) {
	case *corev1.ConfigMap:
		return object.Data
	case *appsv1.StatefulSet:
		mounted(variant, object)
	}
	return nil
}

// What is mounted exists, exactly once.
func mounted(variant string, set *appsv1.StatefulSet) {
	there := map[string]int{}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		there[volume.Name]++
	}
	for _, claim := range set.Spec.VolumeClaimTemplates {
		there[claim.Name]++
	}
	for _, mount := range set.Spec.Template.Spec.Containers[0].VolumeMounts {
		if there[mount.Name] != 1 {
			fail("%s: %d volumes are called %s", variant, there[mount.Name], mount.Name)
		}
	}
}

func write(path, text string) { check(path, os.WriteFile(path, []byte(text), 0o644)) }

func check(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "deploy: "+format+"\n", arguments...)
	os.Exit(1)
}
