/* kernels_lanes.h: the sums of kernels.h in vectors of LANES bodies. kernels.c includes it once for each instruction set, with LANES,
 * TARGET, ROOT and NAME() set; plain C operators on the compiler's vectors, so that all variants are one text.
 *
 * Every lane is a body of its own: nothing is ever added across lanes, so their number cannot change a sum. */
#if LANES > 1
typedef double NAME(vec) __attribute__((vector_size(8 * LANES)));
typedef double NAME(mem) __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef long long NAME(bits) __attribute__((vector_size(8 * LANES)));
#else
typedef double NAME(vec);
typedef double NAME(mem);
#endif
#define AT(p_) (*(const NAME(mem) *)(p_))
#define PUT(p_, value_) (*(NAME(mem) *)(p_) = (value_))

#if LANES > 1
TARGET static void NAME(newton)(int bodies, const double *gm, const struct sim_points *p,
                                double (*a)[SIM_BODIES_MAX]) {
    NAME(bits) lane;
    for (int k = 0; k < LANES; k++) lane[k] = k;
    const NAME(vec) one = (NAME(vec)){0} + 1.0;
    for (int i = 0; i < bodies; i += LANES) {
        const NAME(vec) x = AT(&p->base[0][i]), y = AT(&p->base[1][i]), z = AT(&p->base[2][i]);
        const NAME(vec) sx = AT(&p->shift[0][i]), sy = AT(&p->shift[1][i]),
                        sz = AT(&p->shift[2][i]);
        NAME(vec) ax = {0}, ay = {0}, az = {0};
        for (int j = 0; j < bodies; j++) {
            NAME(vec) dx = (p->base[0][j] - x) + (p->shift[0][j] - sx);
            NAME(vec) dy = (p->base[1][j] - y) + (p->shift[1][j] - sy);
            NAME(vec) dz = (p->base[2][j] - z) + (p->shift[2][j] - sz);
            NAME(vec) r2 = dx * dx + dy * dy + dz * dz;
            /* A body's distance from itself, 0, counts as 1: then it adds 0, and no sum that began with 0 sees that. Two
             * bodies in one place still make what is not a number. */
            NAME(bits) self = lane == (long long)(j - i);
            r2 = (NAME(vec))((NAME(bits))r2 | (self & (NAME(bits))one));
            NAME(vec) inverse = 1.0 / ROOT(r2);
            NAME(vec) cube = inverse * inverse * inverse;
            NAME(vec) pull = gm[j] * cube;
            ax += pull * dx;
            ay += pull * dy;
            az += pull * dz;
        }
        PUT(&a[0][i], ax);
        PUT(&a[1][i], ay);
        PUT(&a[2][i], az);
    }
}
#endif

TARGET static void NAME(pull_bodies)(struct sim_group *g, const struct sim_view *b, uint32_t first,
                                     uint32_t last, double softening2) {
    const double *bx = b->x, *by = b->y, *bz = b->z, *mass = b->mass;
    for (int i = 0; i < g->count; i += LANES) {
        const NAME(vec) x = AT(&g->x[i]), y = AT(&g->y[i]), z = AT(&g->z[i]);
        NAME(vec) ax = AT(&g->ax[i]), ay = AT(&g->ay[i]), az = AT(&g->az[i]);
        NAME(vec) potential = AT(&g->potential[i]);
        for (uint32_t j = first; j < last; j++) {
            NAME(vec) dx = bx[j] - x, dy = by[j] - y, dz = bz[j] - z;
            NAME(vec) r2 = dx * dx + dy * dy + dz * dz + softening2;
            NAME(vec) inverse = 1.0 / ROOT(r2);
            NAME(vec) depth = mass[j] * inverse;
            NAME(vec) pull = depth * inverse * inverse;
            potential -= depth;
            ax += pull * dx;
            ay += pull * dy;
            az += pull * dz;
        }
        PUT(&g->ax[i], ax);
        PUT(&g->ay[i], ay);
        PUT(&g->az[i], az);
        PUT(&g->potential[i], potential);
    }
}

/* f(d) = (d^2 + e^2)^(-1/2) about the centre of mass to second order: m f - trace/2 f^3 + 3/2 (d S d) f^5, and its gradient. */
TARGET static void NAME(pull_cells)(struct sim_group *g, const struct sim_cell *cells,
                                    const uint32_t *list, uint32_t count, double softening2) {
    for (int i = 0; i < g->count; i += LANES) {
        const NAME(vec) x = AT(&g->x[i]), y = AT(&g->y[i]), z = AT(&g->z[i]);
        NAME(vec) ax = AT(&g->ax[i]), ay = AT(&g->ay[i]), az = AT(&g->az[i]);
        NAME(vec) potential = AT(&g->potential[i]);
        for (uint32_t k = 0; k < count; k++) {
            const struct sim_cell *c = &cells[list[k]];
            NAME(vec) dx = c->x - x, dy = c->y - y, dz = c->z - z;
            NAME(vec) r2 = dx * dx + dy * dy + dz * dz + softening2;
            NAME(vec) f = 1.0 / ROOT(r2);
            NAME(vec) f2 = f * f, f3 = f2 * f, f5 = f3 * f2;
            NAME(vec) sx = c->xx * dx + c->xy * dy + c->xz * dz;
            NAME(vec) sy = c->xy * dx + c->yy * dy + c->yz * dz;
            NAME(vec) sz = c->xz * dx + c->yz * dy + c->zz * dz;
            NAME(vec) dsd = sx * dx + sy * dy + sz * dz;
            NAME(vec) pull = c->mass * f3 + f5 * (7.5 * dsd * f2 - 1.5 * c->trace);
            NAME(vec) turn = 3.0 * f5;
            potential -= c->mass * f - 0.5 * c->trace * f3 + 1.5 * dsd * f5;
            ax += pull * dx - turn * sx;
            ay += pull * dy - turn * sy;
            az += pull * dz - turn * sz;
        }
        PUT(&g->ax[i], ax);
        PUT(&g->ay[i], ay);
        PUT(&g->az[i], az);
        PUT(&g->potential[i], potential);
    }
}

#undef AT
#undef PUT
#undef LANES
#undef TARGET
#undef ROOT
#undef NAME
