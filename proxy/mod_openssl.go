package proxy

// opensslCacheModule is ngx_openssl_cache_module: which of the certificates that
// have been read a new configuration takes over from the old one.
func opensslCacheModule() Module {
	return Module{Name: "ngx_openssl_cache_module", Commands: Ignored(InMain, "flag",
		"with each configuration certificates are read again if their files have changed", "ssl_object_cache_inheritable")}
}
