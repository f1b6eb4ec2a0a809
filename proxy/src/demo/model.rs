//! The predictor itself: multinomial logistic regression over four measurements of a flower.

/// Class names, in the order of the models' outputs.
pub(super) const SPECIES: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// Largest measurement accepted, in centimetres; keeps the arithmetic finite.
const LARGEST: f64 = 1000.0;

/// One flower: sepal length, sepal width, petal length, petal width, in centimetres.
pub(super) type Features = [f64; 4];

/// Which of the two trained models a server holds.
///
/// Both are `sklearn.linear_model.LogisticRegression(max_iter=10000, tol=1e-8)` of scikit-learn 1.9.1, trained with
/// lbfgs and an L2 penalty on all 150 rows of `load_iris`, unscaled. Accuracy on those same rows, and the mean of a
/// 10-fold cross-validation (`StratifiedKFold(10, shuffle=True, random_state=0)`):
///
/// | version | features | `C` | right on the training rows | cross-validated |
/// |---|---|---|---|---|
/// | `V1` | all four | 1.0 | 146 of 150 | 0.960 |
/// | `V2` | petal length and width | 10.0 | 144 of 150 | 0.960 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Trained on all four measurements.
    V1,
    /// Trained on the petals only, less regularised: surer of itself, and of another opinion on a few flowers.
    V2,
}

/// What training left: one row of coefficients and one intercept per species.
struct Weights {
    coefficients: [Features; 3],
    intercepts: [f64; 3],
}

const V1: Weights = Weights {
    coefficients: [
        [-0.423513, 0.967351, -2.517154, -1.079335],
        [0.534464, -0.321588, -0.206393, -0.944299],
        [-0.110951, -0.645762, 2.723548, 2.023634],
    ],
    intercepts: [9.84959, 2.237199, -12.086789],
};

const V2: Weights = Weights {
    coefficients: [
        [0.0, 0.0, -4.586146, -2.241294],
        [0.0, 0.0, 0.160683, -2.158602],
        [0.0, 0.0, 4.425463, 4.399896],
    ],
    intercepts: [18.875148, 6.384434, -25.259582],
};

/// What a model says about one flower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prediction {
    /// Index into [`SPECIES`] of the most probable class.
    pub(super) label: usize,
    /// One per class; each 0 … 1, their sum 1.
    pub(super) probabilities: [f64; 3],
}

impl Prediction {
    /// The name of the most probable class.
    pub(super) fn species(&self) -> &'static str {
        SPECIES[self.label]
    }
}

impl Version {
    /// The version as responses and headers spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Classifies one flower, already checked by [`features`].
    pub(super) fn predict(self, flower: &Features) -> Prediction {
        let weights = match self {
            Self::V1 => &V1,
            Self::V2 => &V2,
        };
        let score = |class: usize| {
            let products = weights.coefficients[class]
                .iter()
                .zip(flower)
                .map(|(w, x)| w * x);
            products.sum::<f64>() + weights.intercepts[class]
        };
        let scores = [score(0), score(1), score(2)];
        let highest = scores.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let powers = scores.map(|s| (s - highest).exp()); // softmax, shifted so that no power overflows
        let sum: f64 = powers.iter().sum();
        let label = scores.iter().position(|&s| s >= highest).unwrap_or(0);
        Prediction {
            label,
            probabilities: powers.map(|p| p / sum),
        }
    }
}

/// Checks one row: four finite measurements of at most 1000 cm.
///
/// The error is a sentence for the caller; `index` is the row's 0-based place in the request.
pub(super) fn features(index: usize, row: &[f64]) -> Result<Features, String> {
    let flower = Features::try_from(row)
        .map_err(|_| format!("row {index} has {} values, the model takes 4", row.len()))?;
    if flower.iter().all(|x| x.abs() <= LARGEST) {
        Ok(flower)
    } else {
        Err(format!("row {index} holds a value beyond {LARGEST} cm"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    fn right(version: Version) -> usize {
        let rows = ROWS.iter().enumerate();
        rows.filter(|(index, row)| version.predict(row).label == index / 50)
            .count()
    }

    #[test]
    fn the_accuracy_is_as_documented() {
        assert_eq!((right(Version::V1), right(Version::V2)), (146, 144));
    }

    #[test]
    fn probabilities_are_those_of_the_trained_model() {
        // predict_proba of the same two models in scikit-learn, for one flower.
        let flower = [6.0, 2.7, 5.1, 1.6];
        let expected = [
            (
                Version::V1,
                [4.49696125e-04, 3.49705689e-01, 6.49844615e-01],
            ),
            (
                Version::V2,
                [2.52850624e-06, 3.54352261e-01, 6.45645211e-01],
            ),
        ];
        for (version, probabilities) in expected {
            let said = version.predict(&flower);
            assert_eq!(said.species(), "virginica");
            for (said, wanted) in said.probabilities.iter().zip(probabilities) {
                assert!(
                    (said - wanted).abs() < 1e-5,
                    "{version:?}: {said} instead of {wanted}"
                );
            }
        }
    }

    #[test]
    fn probabilities_stay_finite_at_the_largest_measurements() {
        for flower in [[LARGEST; 4], [-LARGEST; 4]] {
            for version in [Version::V1, Version::V2] {
                let sum: f64 = version.predict(&flower).probabilities.iter().sum();
                assert!((sum - 1.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_row_of_the_wrong_shape_or_size_is_refused() {
        assert_eq!(
            features(3, &[1.0]),
            Err("row 3 has 1 values, the model takes 4".to_owned())
        );
        assert!(features(0, &[1.0, 1.0, 1.0, 1e300]).is_err());
        assert!(features(0, &[1.0, 1.0, 1.0, f64::NAN]).is_err());
    }
}
