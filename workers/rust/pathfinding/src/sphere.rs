//! Places on the Earth as a sphere, and distances along great circles.

/// The mean radius in nautical miles (IUGG: 6,371.0088 km).
pub const RADIUS_NM: f64 = 6371.0088 / 1.852;

/// Degrees, north and east positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub latitude: f64,
    pub longitude: f64,
}

/// A unit vector from the centre of the Earth.
pub type Vector = [f64; 3];

impl Place {
    /// None outside -90 .. 90 and -180 .. 180.
    pub fn new(latitude: f64, longitude: f64) -> Option<Place> {
        ((-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude))
            .then_some(Place { latitude, longitude })
    }

    pub fn vector(self) -> Vector {
        let (sin_lat, cos_lat) = self.latitude.to_radians().sin_cos();
        let (sin_lon, cos_lon) = self.longitude.to_radians().sin_cos();
        [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat]
    }

    pub fn of([x, y, z]: Vector) -> Place {
        Place {
            latitude: z.clamp(-1.0, 1.0).asin().to_degrees(),
            longitude: y.atan2(x).to_degrees(),
        }
    }
}

pub fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The angle between two places in radians; exact for near ones too.
pub fn angle(a: Vector, b: Vector) -> f64 {
    let chord = ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2)).sqrt();
    2.0 * (chord / 2.0).min(1.0).asin()
}

pub fn distance_nm(a: Vector, b: Vector) -> f64 {
    angle(a, b) * RADIUS_NM
}

/// A great circle from one place towards another.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    from: Vector,
    across: Vector, // a quarter of the circle further on
    pub angle: f64,
}

impl Leg {
    pub fn new(from: Vector, to: Vector) -> Leg {
        let along = dot(from, to);
        let mut across = [0, 1, 2].map(|i| to[i] - along * from[i]);
        let length = dot(across, across).sqrt();
        if length > 0.0 {
            across = across.map(|x| x / length);
        }
        Leg { from, across, angle: angle(from, to) }
    }

    /// The place so many radians along.
    pub fn at(&self, angle: f64) -> Vector {
        let (sin, cos) = angle.sin_cos();
        [0, 1, 2].map(|i| cos * self.from[i] + sin * self.across[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degree_of_a_great_circle_is_60_miles() {
        let (equator, east) = (Place::new(0.0, 0.0).unwrap(), Place::new(0.0, 1.0).unwrap());
        let one = distance_nm(equator.vector(), east.vector());
        assert!((one - 60.0).abs() < 0.1, "{one}");
        let pole = Place::new(90.0, 17.0).unwrap();
        let quarter = distance_nm(equator.vector(), pole.vector());
        assert!((quarter - 90.0 * one).abs() < 1e-6);
    }

    #[test]
    fn a_leg_ends_where_it_should() {
        let from = Place::new(51.9, 4.0).unwrap().vector();
        let to = Place::new(-33.9, 18.4).unwrap().vector();
        let leg = Leg::new(from, to);
        assert!(angle(leg.at(leg.angle), to) < 1e-12);
        assert!(angle(leg.at(0.0), from) < 1e-12);
        let half = leg.at(leg.angle / 2.0);
        assert!((angle(from, half) - angle(half, to)).abs() < 1e-12);
    }
}
